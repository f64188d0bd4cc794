//! The filter against its table, number by number, in an interpreter; and the real kernel against a handful of calls.

use std::collections::HashMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use manifests::workload::CAPABILITIES;

use super::profile::{Condition, Rule, Test};
use super::*;

const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// Runs the program as the kernel would, on `struct seccomp_data`; also returns how many steps it took.
fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> (Verdict, usize) {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (nth, arg) in args.into_iter().enumerate() {
        data[16 + 8 * nth..24 + 8 * nth].copy_from_slice(&arg.to_ne_bytes());
    }
    let (mut acc, mut at, mut steps) = (0u32, 0usize, 0);
    loop {
        let i = filter.program[at];
        at += 1;
        steps += 1;
        let code = u32::from(i.code);
        match code & 0x07 {
            libc::BPF_LD => {
                let offset = i.k as usize;
                acc = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            libc::BPF_ALU if code & 0xf0 == libc::BPF_AND => acc &= i.k,
            libc::BPF_JMP if code & 0xf0 == libc::BPF_JA => at += i.k as usize,
            libc::BPF_JMP => {
                let yes = match code & 0xf0 {
                    libc::BPF_JEQ => acc == i.k,
                    libc::BPF_JGE => acc >= i.k,
                    libc::BPF_JGT => acc > i.k,
                    other => panic!("jump {other:#x}"),
                };
                at += usize::from(if yes { i.jt } else { i.jf });
            }
            libc::BPF_RET => {
                let word = u16::try_from(i.k & 0xffff).unwrap();
                let verdict = match i.k & 0xffff_0000 {
                    libc::SECCOMP_RET_ALLOW => Verdict::Allow,
                    libc::SECCOMP_RET_LOG => Verdict::Log,
                    libc::SECCOMP_RET_ERRNO => Verdict::Errno(word),
                    libc::SECCOMP_RET_TRAP => Verdict::Trap,
                    libc::SECCOMP_RET_TRACE => Verdict::Trace(word),
                    libc::SECCOMP_RET_KILL_THREAD => Verdict::KillThread,
                    libc::SECCOMP_RET_KILL_PROCESS => Verdict::Kill,
                    other => panic!("return {other:#x}"),
                };
                return (verdict, steps);
            }
            other => panic!("class {other:#x}"),
        }
    }
}

/// The verdict by looking through the rules, one after the other.
fn oracle(profile: &Profile, arch: Arch, number: u32, args: [u64; 6]) -> Verdict {
    let mut about = Vec::new();
    for rule in &profile.rules {
        let mut numbers = rule.names.iter().filter_map(|name| arch.number(table::find(name)?));
        if numbers.any(|one| one == number) {
            about.push(rule);
        }
    }
    decide(profile, arch, &about, number, args)
}

/// The same with the rules about this number found already.
fn decide(profile: &Profile, arch: Arch, about: &[&Rule], number: u32, args: [u64; 6]) -> Verdict {
    let named = || Profile::newest_named(&profile.rules, arch).unwrap_or(0);
    if number >= 0x4000_0000 || profile.newest.is_some_and(|newest| number > newest && number > named()) {
        return ENOSYS;
    }
    let holds = |condition: &Condition| {
        let value = args[usize::from(condition.argument)];
        match condition.test {
            Test::Equal(other) => value == other,
            Test::NotEqual(other) => value != other,
            Test::Less(other) => value < other,
            Test::LessOrEqual(other) => value <= other,
            Test::Greater(other) => value > other,
            Test::GreaterOrEqual(other) => value >= other,
            Test::Masked { mask, value: wanted } => value & mask == wanted,
            Test::Within(ranges) => ranges
                .iter()
                .any(|&(first, last)| (u64::from(first)..=u64::from(last)).contains(&value)),
        }
    };
    let of = |conditional: bool| {
        let mut rules = about.iter().filter(|rule| rule.conditions.is_empty() != conditional);
        rules.find(|rule| rule.conditions.iter().all(holds))
    };
    of(true)
        .or_else(|| of(false))
        .map_or(profile.default, |rule| rule.verdict)
}

fn first(value: u64) -> [u64; 6] {
    [value, 0, 0, 0, 0, 0]
}

/// A set with one capability.
fn only(name: &str) -> u64 {
    1 << CAPABILITIES.iter().position(|known| *known == name).unwrap()
}

/// The default profile under every set of capabilities that matters: none, each alone, all.
fn standards() -> Vec<Profile> {
    let each = table::BY_CAPABILITY.iter().map(|(name, _)| only(name));
    [0, u64::MAX].into_iter().chain(each).map(Profile::standard).collect()
}

#[test]
fn every_number_gets_the_verdict_of_the_profile() {
    let high = [0x4000_0000, 0x4000_0001, 0x4000_0208, i32::MAX as u32, u32::MAX];
    for profile in standards() {
        for arch in ARCHES {
            let filter = Filter::compile(arch, &profile);
            let mut rules: HashMap<u32, Vec<&Rule>> = HashMap::new();
            for rule in &profile.rules {
                for number in rule.names.iter().filter_map(|name| arch.number(table::find(name)?)) {
                    rules.entry(number).or_default().push(rule);
                }
            }
            for number in (0..=600).chain(high) {
                let about = rules.get(&number).map_or(&[][..], Vec::as_slice);
                for arg in [0, 1, 17, u64::MAX] {
                    let (verdict, steps) = run(&filter, arch.audit(), number, first(arg));
                    let wanted = decide(&profile, arch, about, number, first(arg));
                    assert_eq!(verdict, wanted, "{arch:?} {number} {arg:#x}");
                    assert!(steps <= 50, "{arch:?} {number}: {steps} steps");
                }
            }
        }
    }
}

#[test]
fn arguments_are_looked_at_to_the_last_value() {
    let edges = [
        0x1000_0000u64,
        0x0002_0000,
        0x4000_0000,
        0x0100_0000,
        0x003d_0f00,
        0x0000_0011,
        1 << 32,
        1 << 60,
    ];
    let personalities = [
        0x2_0000,
        0x2_0008,
        0x2_0001,
        0xffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x1_0000_0008,
    ];
    let profile = Profile::standard(0);
    for arch in ARCHES {
        let filter = Filter::compile(arch, &profile);
        for name in ["clone", "personality", "socket"] {
            let number = arch.number(table::find(name).unwrap()).unwrap();
            for arg in (0..64).chain(edges).chain(personalities) {
                let (verdict, _) = run(&filter, arch.audit(), number, first(arg));
                let wanted = oracle(&profile, arch, number, first(arg));
                assert_eq!(verdict, wanted, "{arch:?} {name} {arg:#x}");
            }
        }
    }
    // Spot checks that the oracle itself says what the profile means.
    let says = |number, arg: libc::c_int| oracle(&profile, Arch::X86_64, number, first(arg as u64));
    assert_eq!(says(41, libc::AF_VSOCK), EPERM);
    assert_eq!(says(41, libc::AF_INET6), Verdict::Allow);
    assert_eq!(says(56, libc::CLONE_NEWUSER), EPERM);
    assert_eq!(says(56, libc::CLONE_VM | libc::CLONE_THREAD), Verdict::Allow);
    assert_eq!(says(435, 0), ENOSYS);
}

#[test]
fn capabilities_open_what_they_open_in_container_runtimes() {
    let verdict = |capabilities, name| {
        let number = Arch::X86_64.number(table::find(name).unwrap()).unwrap();
        oracle(
            &Profile::standard(capabilities),
            Arch::X86_64,
            number,
            first(0x1000_0000),
        )
    };
    for (capability, calls) in table::BY_CAPABILITY {
        for call in *calls {
            assert_eq!(verdict(only(capability), call), Verdict::Allow, "{capability} {call}");
            assert_ne!(verdict(0, call), Verdict::Allow, "{call}");
        }
    }
    // All that the default set of an image has.
    assert_eq!(verdict(only("SYS_CHROOT"), "chroot"), Verdict::Allow);
    assert_eq!(verdict(only("SYS_CHROOT"), "mount"), EPERM);
    for never in [
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "userfaultfd",
        "kexec_load",
        "swapon",
        "pivot_root",
    ] {
        assert_eq!(verdict(u64::MAX, never), EPERM, "{never}");
    }
    let irrelevant = only("CHOWN") | only("NET_ADMIN") | only("SYS_CHROOT");
    assert_eq!(Profile::relevant(irrelevant), only("SYS_CHROOT"));
}

/// Conditions of a document on all six arguments, at the edges of both halves.
#[test]
fn conditions_hold_exactly_where_they_should() {
    let values: Vec<u64> = [
        0u64,
        1,
        7,
        0xffff_fffe,
        0xffff_ffff,
        1 << 32,
        (1 << 32) + 7,
        (7 << 32) + 1,
        u64::MAX - 1,
        u64::MAX,
    ]
    .into_iter()
    .collect();
    let mut tests: Vec<Test> = Vec::new();
    for &value in &values {
        tests.extend([
            Test::Equal(value),
            Test::NotEqual(value),
            Test::Less(value),
            Test::LessOrEqual(value),
            Test::Greater(value),
            Test::GreaterOrEqual(value),
        ]);
        for mask in [0, 0xff, 1 << 40, u64::MAX, 0xffff_ffff_0000_0000] {
            tests.push(Test::Masked { mask, value });
        }
    }
    let arch = Arch::native().unwrap();
    let number = arch.number(table::find("ioctl").unwrap()).unwrap();
    for (nth, test) in tests.iter().enumerate() {
        let argument = u8::try_from(nth % 6).unwrap();
        let other = (argument + 1) % 6;
        let profile = Profile {
            default: Verdict::Allow,
            newest: None,
            rules: vec![
                Rule::new(
                    ["ioctl"],
                    vec![
                        Condition {
                            argument,
                            test: test.clone(),
                        },
                        Condition {
                            argument: other,
                            test: Test::NotEqual(7),
                        },
                    ],
                    Verdict::Trap,
                ),
                Rule::new(
                    ["ioctl"],
                    vec![Condition {
                        argument: other,
                        test: Test::Equal(7),
                    }],
                    Verdict::Log,
                ),
                Rule::new(["ioctl"], Vec::new(), Verdict::KillThread),
            ],
        };
        let filter = Filter::compile(arch, &profile);
        for &value in &values {
            for beside in [0, 7] {
                let mut args = [0; 6];
                args[usize::from(argument)] = value;
                args[usize::from(other)] = beside;
                let (verdict, _) = run(&filter, arch.audit(), number, args);
                assert_eq!(
                    verdict,
                    oracle(&profile, arch, number, args),
                    "{test:?} {value:#x} {beside}"
                );
            }
        }
    }
}

#[test]
fn an_open_profile_stays_open_but_for_what_it_names_and_x32() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "nosuchcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    let profile = document(text).profile(under(Arch::X86_64, 0));
    let filter = Filter::compile(Arch::X86_64, &profile);
    let verdict = |number| run(&filter, Arch::X86_64.audit(), number, first(0)).0;
    assert_eq!(verdict(83), Verdict::Errno(13));
    for number in [0, 82, 84, 300, 600, 0x3fff_ffff] {
        assert_eq!(verdict(number), Verdict::Allow, "{number}");
    }
    // The same call by its x32 number.
    assert_eq!(verdict(0x4000_0000 | 83), ENOSYS);
}

fn under(arch: Arch, capabilities: u64) -> Circumstances {
    Circumstances {
        arch,
        capabilities,
        kernel: (5, 10),
    }
}

fn document(text: &str) -> Document {
    Document::parse(text).unwrap()
}

#[test]
fn a_document_in_dockers_format_depends_on_capabilities_machine_and_kernel() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read", "chroot"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "comment": "x86", "args": null, "includes": {"arches": ["amd64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"name": "acct", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.0"}},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 21522, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"}
        ]}"#;
    let document = document(text);
    let verdict = |capabilities, arch: Arch, name: &str, args| {
        let profile = document.profile(under(arch, capabilities));
        let filter = Filter::compile(arch, &profile);
        run(
            &filter,
            arch.audit(),
            arch.number(table::find(name).unwrap()).unwrap(),
            args,
        )
        .0
    };
    let x86 = |name, arg| verdict(0, Arch::X86_64, name, first(arg));
    assert_eq!(x86("read", 0), Verdict::Allow);
    assert_eq!(x86("write", 0), EPERM);
    assert_eq!(x86("mount", 0), EPERM);
    assert_eq!(
        verdict(only("SYS_ADMIN"), Arch::X86_64, "mount", first(0)),
        Verdict::Allow
    );
    assert_eq!(x86("clone3", 0), ENOSYS);
    assert_eq!(x86("arch_prctl", 0), Verdict::Allow);
    assert_eq!(verdict(0, Arch::Aarch64, "read", first(0)), Verdict::Allow);
    assert_eq!(x86("ptrace", 0), Verdict::Allow);
    assert_eq!(x86("acct", 0), EPERM);
    // Two conditions on one argument are alternatives.
    assert_eq!(
        [x86("personality", 0), x86("personality", 8), x86("personality", 9)],
        [Verdict::Allow, Verdict::Allow, EPERM]
    );
    let ioctl = |request| verdict(0, Arch::X86_64, "ioctl", [0, request, 0, 0, 0, 0]);
    assert_eq!([ioctl(1), ioctl(21_522)], [Verdict::Allow, EPERM]);
    // Newer than anything it names: not there, rather than forbidden.
    let profile = document.profile(under(Arch::X86_64, 0));
    assert_eq!(oracle(&profile, Arch::X86_64, 436, first(0)), ENOSYS);
    let filter = Filter::compile(Arch::X86_64, &profile);
    assert_eq!(run(&filter, Arch::X86_64.audit(), 436, first(0)).0, ENOSYS);
}

#[test]
fn what_is_wrong_with_a_document_is_said() {
    let call = |inner: &str| format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{inner}]}}");
    let cases = [
        ("{".to_owned(), "EOF while parsing an object at line 1 column 1"),
        ("{}".to_owned(), "missing field `defaultAction`"),
        (
            r#"{"defaultAction": "ALLOW"}"#.to_owned(),
            "defaultAction: \"ALLOW\" is none; write SCMP_ACT_",
        ),
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.to_owned(), "needs an agent"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "sysCalls": []}"#.to_owned(),
            "unknown field `sysCalls`",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOPE"]}"#.to_owned(),
            "flags: \"NOPE\" is none",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#.to_owned(),
            "listenerPath: there is no agent",
        ),
        (
            call(r#"{"names": [], "action": "SCMP_ACT_TRAP"}"#),
            "syscalls[0].names: is empty",
        ),
        (
            call(r#"{"names": ["a"], "action": "KILL"}"#),
            "syscalls[0].action: \"KILL\" is none",
        ),
        (
            call(r#"{"names": ["a"], "action": "SCMP_ACT_TRAP", "arg": []}"#),
            "unknown field `arg`",
        ),
        (
            call(
                r#"{"names": ["a"], "action": "SCMP_ACT_TRAP", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}"#,
            ),
            "syscalls[0].args[0].index: 6 is out of range",
        ),
        (
            call(r#"{"names": ["a"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "EQ"}]}"#),
            "syscalls[0].args[0].op: \"EQ\" is none",
        ),
        (
            call(r#"{"names": ["a"], "action": "SCMP_ACT_TRAP", "includes": {"caps": ["SYS_ADMINISTRATOR"]}}"#),
            "syscalls[0].includes.caps: \"SYS_ADMINISTRATOR\" is no capability",
        ),
        (
            call(r#"{"names": ["a"], "action": "SCMP_ACT_TRAP", "excludes": {"minKernel": "new"}}"#),
            "syscalls[0].excludes.minKernel: \"new\" is no version",
        ),
    ];
    for (text, wanted) in cases {
        let error = Document::parse(&text).unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

/// What goes to an OCI runtime, read back as a document, means the same.
#[test]
fn in_ocis_words_it_is_the_same_profile() {
    for capabilities in [0, only("SYS_ADMIN"), only("SYS_CHROOT")] {
        let profile = Profile::standard(capabilities);
        let again = document(&profile.oci(Arch::X86_64).to_string()).profile(under(Arch::X86_64, capabilities));
        for number in 0..=450 {
            for arg in [0, 8, 16, 40, 41, 0x1000_0000, 0x2_0008, u64::MAX] {
                assert_eq!(
                    oracle(&profile, Arch::X86_64, number, first(arg)),
                    oracle(&again, Arch::X86_64, number, first(arg)),
                    "{number} {arg:#x}"
                );
            }
        }
    }
}

#[test]
fn a_program_crosses_to_the_spawner_unchanged() {
    let filter = Filter::compile(Arch::X86_64, &Profile::standard(0));
    let again = Filter::from_words(&filter.words());
    assert_eq!(again.words(), filter.words());
    assert_eq!((again.len(), again.program[1].k), (filter.len(), Arch::X86_64.audit()));
}

#[test]
fn another_architecture_is_killed() {
    const I386: u32 = 0x4000_0003;
    for arch in ARCHES {
        let filter = Filter::compile(arch, &Profile::standard(0));
        let other = if arch == Arch::X86_64 {
            Arch::Aarch64
        } else {
            Arch::X86_64
        };
        for wrong in [I386, other.audit(), 0, u32::MAX] {
            for number in 0..=600 {
                assert_eq!(
                    run(&filter, wrong, number, first(0)).0,
                    Verdict::Kill,
                    "{arch:?} {wrong:#x} {number}"
                );
            }
        }
    }
}

#[test]
fn the_tree_is_shallow() {
    for arch in ARCHES {
        let filter = Filter::compile(arch, &Profile::standard(0));
        assert!(
            filter.len() < 400 && !filter.is_empty(),
            "{arch:?}: {} instructions",
            filter.len()
        );
        // What the kernel emulates at install: numbers without arguments. 4 in front, then the depth of the tree.
        let deepest = (0..=600)
            .map(|number| run(&filter, arch.audit(), number, first(0)).1)
            .max()
            .unwrap();
        assert!(deepest <= 24, "{arch:?}: {deepest} steps");
    }
}

/// Numbers by name from the C library, so that a slip in the table shows on the architecture the tests run on.
#[test]
fn the_table_agrees_with_the_c_library() {
    let arch = Arch::native().expect("tests run where sandboxes run");
    let known: &[(&str, libc::c_long)] = &[
        ("read", libc::SYS_read),
        ("openat2", libc::SYS_openat2),
        ("execve", libc::SYS_execve),
        ("exit_group", libc::SYS_exit_group),
        ("rt_sigreturn", libc::SYS_rt_sigreturn),
        ("futex", libc::SYS_futex),
        ("mremap", libc::SYS_mremap),
        ("newfstatat", libc::SYS_newfstatat),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("seccomp", libc::SYS_seccomp),
        ("writev", libc::SYS_writev),
    ];
    for (name, number) in known {
        let call = table::find(name).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(arch.number(call).map(libc::c_long::from), Some(*number), "{name}");
        let number = u32::try_from(*number).unwrap();
        assert_eq!(
            oracle(&Profile::standard(0), arch, number, first(0)),
            Verdict::Allow,
            "{name}"
        );
    }
    for (name, number) in [
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("personality", libc::SYS_personality),
        ("socket", libc::SYS_socket),
        ("chroot", libc::SYS_chroot),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("ptrace", libc::SYS_ptrace),
        ("set_mempolicy_home_node", libc::SYS_set_mempolicy_home_node),
    ] {
        let found = arch.number(table::find(name).unwrap());
        assert_eq!(found.map(libc::c_long::from), Some(number), "{name}");
    }
    let denied = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_perf_event_open,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_pivot_root,
        libc::SYS_open_by_handle_at,
    ];
    for number in denied {
        let number = u32::try_from(number).unwrap();
        assert_eq!(oracle(&Profile::standard(0), arch, number, first(0)), EPERM, "{number}");
    }
    let mut all = Vec::new();
    for list in [table::ALLOWED, table::BY_ARGUMENT, table::OTHERS] {
        assert!(list.is_sorted_by(|a, b| a.0 < b.0), "sorted by name, each once");
        all.extend(list.iter().map(|call| call.0));
    }
    for (capability, calls) in table::BY_CAPABILITY {
        assert!(calls.iter().all(|call| all.contains(call)), "{capability}");
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "each in one list");
}

/// Runs `probe` in a child under the filter, between fork and exec; what it returns becomes the exit code.
fn under_filter(probe: fn() -> i32) -> std::process::ExitStatus {
    let filter = Filter::compile(Arch::native().unwrap(), &Profile::standard(0));
    let mut command = Command::new("/bin/true");
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: the closure makes raw system calls only; the filter was compiled before the fork.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || filter.install().is_err() {
                libc::_exit(99);
            }
            match probe() {
                0 => Ok(()),
                code => libc::_exit(code),
            }
        })
    };
    command.status().unwrap()
}

/// 0 when the call fails with this errno; for use under the filter.
#[expect(unsafe_code, reason = "raw system calls, to meet the filter")]
fn fails(number: libc::c_long, arg0: libc::c_long, errno: i32) -> bool {
    // SAFETY: every call used here takes zero or null for its arguments; nothing is dereferenced.
    let result = unsafe { libc::syscall(number, arg0, 0, 0, 0, 0) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(errno)
}

#[test]
fn the_kernel_takes_it_and_an_ordinary_program_runs() {
    assert!(under_filter(|| 0).success());
}

#[test]
fn the_kernel_refuses_what_the_table_refuses() {
    let probe = || {
        let refused = [
            (libc::SYS_unshare, libc::CLONE_NEWUSER.into(), libc::EPERM),
            (libc::SYS_mount, 0, libc::EPERM),
            (libc::SYS_ptrace, 0, libc::EPERM),
            (libc::SYS_bpf, 0, libc::EPERM),
            (libc::SYS_clone, libc::CLONE_NEWNS.into(), libc::EPERM),
            (libc::SYS_clone3, 0, libc::ENOSYS),
            (libc::SYS_personality, 1, libc::EPERM),
            (libc::SYS_socket, libc::AF_VSOCK.into(), libc::EPERM),
            (500, 0, libc::ENOSYS),
        ];
        let wrong = refused
            .iter()
            .position(|(number, arg0, errno)| !fails(*number, *arg0, *errno));
        wrong.map_or(0, |index| 10 + i32::try_from(index).unwrap_or(50))
    };
    let status = under_filter(probe);
    assert!(
        status.success(),
        "call {:?} of the list was not refused as it should be",
        status.code().map(|c| c - 10)
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_call_ends_the_process() {
    let probe = || {
        #[expect(unsafe_code, reason = "a 32-bit system call")]
        // SAFETY: getpid by the 32-bit gate; takes nothing, changes nothing but eax.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("eax") 20 => _, options(nostack));
        }
        1
    };
    assert_eq!(under_filter(probe).signal(), Some(libc::SIGSYS));
}
