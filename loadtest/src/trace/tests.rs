use std::path::PathBuf;

use super::*;

fn azure() -> Trace {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("traces/azure2019-236");
    Trace::open(&directory).expect("reads")
}

fn function(name: &str, trigger: Trigger, counts: &[u32]) -> Function {
    Function {
        name: name.to_owned(),
        app: String::new(),
        trigger,
        calls: Calls::PerMinute(counts.to_vec()),
        durations: Durations::new(vec![(0.0, 5.0), (1.0, 15.0)]),
        memory: None,
        start: None,
    }
}

fn trace(functions: Vec<Function>) -> Trace {
    Trace {
        name: "test".to_owned(),
        minutes: 100..105,
        functions,
    }
}

#[test]
fn the_azure_trace_is_read_whole() {
    let trace = azure();
    assert_eq!(
        (trace.name.as_str(), trace.minutes.clone()),
        ("azure2019-236", 480..960)
    );
    assert_eq!(trace.functions.len(), 236);
    // As counted by another program.
    assert_eq!(trace.totals(&trace.minutes).iter().sum::<u64>(), 2_328_833);
    assert_eq!(trace.totals(&(480..481)).iter().sum::<u64>(), 5_088);
    let of = |trigger| trace.functions.iter().filter(|it| it.trigger == trigger).count();
    assert_eq!(
        (of(Trigger::Http), of(Trigger::Timer), of(Trigger::Other)),
        (69, 111, 56)
    );
    assert!(
        trace
            .functions
            .iter()
            .all(|it| it.durations.is_some() && it.memory.is_some())
    );
    let known = trace
        .functions
        .iter()
        .find(|it| it.name.starts_with("e5cebb1cc584"))
        .expect("there");
    let durations = known.durations.as_ref().expect("known");
    assert_eq!(durations.quantile(0.5), Duration::from_millis(86));
    assert_eq!(durations.quantile(0.99), Duration::from_millis(588));
}

#[test]
fn calls_come_in_order_as_often_as_the_trace_says_and_with_its_durations() {
    let trace = azure();
    let minutes = 500..510;
    let calls: Vec<_> = trace.invocations(minutes.clone(), 7).collect();
    assert!(calls.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let mut counted = vec![0; trace.functions.len()];
    calls.iter().for_each(|call| counted[call.function] += 1);
    assert_eq!(counted, trace.totals(&minutes));
    let busiest = trace.clone().top(1, &minutes).functions.remove(0);
    let durations = busiest.durations.as_ref().expect("known");
    let mut own: Vec<_> = calls
        .iter()
        .filter(|it| trace.functions[it.function].name == busiest.name)
        .collect();
    own.sort_by_key(|call| call.duration);
    let median = own[own.len() / 2].duration.expect("known");
    assert!(
        median.abs_diff(durations.quantile(0.5)) <= Duration::from_millis(1),
        "{median:?}"
    );
}

#[test]
fn the_seed_settles_everything_and_leaving_out_moves_nothing() {
    let (a, b) = (
        function("a", Trigger::Http, &[5, 0, 9, 1, 3]),
        function("b", Trigger::Timer, &[1, 1, 2, 1, 0]),
    );
    let both = trace(vec![a.clone(), b.clone()]);
    let calls = |trace: &Trace, minutes, seed| trace.invocations(minutes, seed).collect::<Vec<_>>();
    let all = calls(&both, 100..105, 1);
    assert_eq!(all, calls(&both, 100..105, 1));
    assert_ne!(all, calls(&both, 100..105, 2));
    let own = |calls: &[Invocation], index| -> Vec<_> {
        let own = calls.iter().filter(|call| call.function == index);
        own.map(|call| (call.at, call.duration)).collect()
    };
    assert_eq!(own(&all, 1), own(&calls(&trace(vec![b]), 100..105, 1), 0));
    assert_eq!(own(&all, 0), own(&calls(&trace(vec![a]), 100..105, 1), 0));
    let later: Vec<_> = all.iter().copied().filter(|call| call.at >= MINUTE * 102).collect();
    assert_eq!(later, calls(&both, 102..105, 1));
    assert_eq!(calls(&both, 0..100, 1), [], "before the trace began");
    assert_eq!(calls(&both, 105..200, 1), [], "after it ended");
}

/// Ten timers, each once a minute, and three times in one: their gaps are the period, and they do not fire together.
#[test]
fn timers_keep_their_period_and_others_spread_evenly() {
    let timers = (0..10).map(|nth| function(&format!("timer-{nth}"), Trigger::Timer, &[1, 1, 3, 0, 0]));
    let trace = trace(
        timers
            .chain([function("users", Trigger::Http, &[0, 0, 0, 1000, 1000])])
            .collect(),
    );
    let calls: Vec<_> = trace.invocations(100..105, 3).collect();
    let mut first = Vec::new();
    for nth in 0..10 {
        let at: Vec<_> = calls
            .iter()
            .filter(|call| call.function == nth)
            .map(|call| call.at)
            .collect();
        assert_eq!(at.len(), 5);
        let off = (at[1] - at[0]).abs_diff(MINUTE);
        assert!(off < Duration::from_micros(1), "{at:?}");
        assert!(
            (at[3] - at[2]).abs_diff(MINUTE / 3) < Duration::from_micros(1),
            "{at:?}"
        );
        first.push(at[0]);
    }
    first.sort();
    assert!(first[9] - first[0] > MINUTE / 3, "{first:?}");
    // Kolmogorov-Smirnov against the uniform distribution; 1.95 / sqrt(n) is the critical distance at 0.1 %.
    let times = calls.iter().filter(|call| call.function == 10);
    let shares: Vec<f64> = times
        .map(|call| (call.at - MINUTE * 103).as_secs_f64() / 120.0)
        .collect();
    let distance = shares.iter().enumerate().fold(0.0_f64, |worst, (rank, share)| {
        worst.max((share - rank as f64 / 2000.0).abs())
    });
    assert!(distance < 1.95 / 2000_f64.sqrt(), "{distance}");
}

#[test]
fn functions_are_chosen_by_calls_or_by_seed() {
    let minutes = 480..490;
    let trace = azure();
    let top = trace.clone().top(3, &minutes);
    let mut totals = trace.totals(&minutes);
    totals.sort_unstable_by(|a, b| b.cmp(a));
    let mut chosen = top.totals(&minutes);
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(chosen, totals[..3]);
    let names = |seed| -> Vec<_> {
        let sample = trace.clone().sample(20, seed);
        sample.functions.into_iter().map(|it| it.name).collect()
    };
    assert_eq!((names(1).len(), names(1)), (20, names(1)));
    assert_ne!(names(1), names(2));
    assert_eq!(trace.clone().sample(1_000, 1), trace, "all of them, in their order");
}

#[test]
fn a_damaged_directory_is_told_of_by_file_line_and_column() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |file: &str, text: &str| std::fs::write(directory.path().join(file), text).expect("written");
    let error = || Trace::open(directory.path()).expect_err("not readable").to_string();
    assert!(
        error().contains("cannot read") && error().contains("invocations.csv"),
        "{}",
        error()
    );
    write("invocations.csv", "HashApp,HashFunction,Trigger,5,7\n");
    assert!(error().contains("no column \"6\""), "{}", error());
    write("invocations.csv", "HashApp,HashFunction,Trigger,5,6\na,f,http,1,many\n");
    assert!(
        error().contains("invocations.csv, line 2, 6: \"many\" is not a number of invocations"),
        "{}",
        error()
    );
    write("invocations.csv", "HashApp,HashFunction,Trigger,5,6\na,f,http,1,2\n");
    let trace = Trace::open(directory.path()).expect("durations and memory may be missing");
    assert_eq!(
        (trace.functions[0].durations.clone(), trace.functions[0].memory),
        (None, None)
    );
    write("memory.csv", "HashFunction,AverageAllocatedMb\nf,-3\n");
    assert!(
        error().contains("memory.csv, line 2, AverageAllocatedMb"),
        "{}",
        error()
    );
}
