//! Images from a registry: a tag is resolved once, pinned, pulled at deploy; `knarr images` sees it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use images::Digest;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{ANY_PORTS, Knarr, Place, is_root, needs, until};

/// Debian's registry, for one test.
struct Registry {
    address: String,
    process: Child,
    dir: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let config = dir.path().join("config.yml");
        let data = dir.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).env("REGISTRY_HTTP_ADDR", &address);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(
            "the registry listens",
            || TcpStream::connect(&address).is_ok(),
            String::new,
        );
        Self { address, process, dir }
    }

    /// Pushes busybox's web server with one page, as `app:v1`.
    fn push(&self, page: &str) {
        let archive = archive(self.dir.path(), page, 0);
        let (from, to) = (
            format!("docker-archive:{}", archive.display()),
            format!("docker://{}/app:v1", self.address),
        );
        let copy = Command::new("skopeo")
            .args(["copy", "-q", "--dest-tls-verify=false", &from, &to])
            .status();
        assert!(copy.unwrap().success());
    }
}

/// busybox's web server with one page, as an archive of Docker's; and with something large.
fn archive(dir: &Path, page: &str, mebibytes: usize) -> PathBuf {
    let (root, image) = (dir.join("root"), dir.join("image"));
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("www")).unwrap();
    std::fs::create_dir_all(&image).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::fs::write(root.join("www/index.html"), page).unwrap();
    std::fs::write(root.join("www/large"), vec![b'x'; mebibytes << 20]).unwrap();
    let tar = |dir: &Path, file: &Path, what: &[&str]| {
        let status = Command::new("tar")
            .arg("-C")
            .arg(dir)
            .arg("-cf")
            .arg(file)
            .args(what)
            .status();
        assert!(status.unwrap().success());
    };
    tar(&root, &image.join("layer.tar"), &["."]);
    let layer = Digest::of(&std::fs::read(image.join("layer.tar")).unwrap());
    let config = serde_json::json!({
        "os": "linux", "architecture": images::Platform::host().architecture,
        "config": {"Cmd": ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["app:v1"], "Layers": ["layer.tar"]}]);
    std::fs::write(image.join("config.json"), config.to_string()).unwrap();
    std::fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("app.tar");
    tar(&image, &archive, &["manifest.json", "config.json", "layer.tar"]);
    archive
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_tag_is_pinned_when_its_revision_is_made() {
    let there = ["/usr/bin/docker-registry", "/usr/bin/skopeo", "/bin/busybox"];
    if !needs(
        "docker-registry, skopeo, busybox-static",
        there.iter().all(|it| Path::new(it).exists()),
    ) || !needs("root", is_root())
    {
        return;
    }
    let registry = Registry::start();
    registry.push("one");
    let image = format!("{}/app:v1", registry.address);
    let flags = ["--insecure-registry", registry.address.as_str()];
    let hello = service("hello").program(&image, &[]);
    let place = Place::new();
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write("hello.yaml", &hello.yaml());
    let knarr = Knarr::at(&place, &flags);
    assert_eq!(knarr.get("hello", "/").text(), "one");
    let listed = knarr.ask(&["images"]).well().out;
    assert!(
        listed.contains(&image) && listed.contains("default/hello-00001"),
        "{listed}"
    );
    let kept = knarr.ask(&["images", "rm", &image]);
    assert!(
        kept.code == Some(1) && kept.err.contains("used by default/hello-00001"),
        "{kept:?}"
    );

    // The tag moves: neither the revision nor a restart of Knarr does.
    registry.push("two");
    knarr.stop();
    let knarr = Knarr::at(&place, &flags);
    assert_eq!(knarr.get("hello", "/").text(), "one");

    // Another template is another revision, and takes what the tag stands for now.
    place.write("hello.yaml", &hello.clone().with("example.com/mark", "b").yaml());
    knarr.until("the new revision is ready", |status| {
        status.services.iter().any(|it| it.latest_ready == "hello-00002")
    });
    assert_eq!(knarr.get("hello", "/").text(), "two");

    // A tag that is not there: told, and what served serves on.
    place.write(
        "hello.yaml",
        &service("hello")
            .program(&format!("{}/app:v9", registry.address), &[])
            .yaml(),
    );
    let why = "MANIFEST_UNKNOWN";
    knarr.until("the failure is told", |status| {
        status
            .services
            .iter()
            .any(|it| it.ready.status == "False" && it.ready.message.contains(why))
    });
    let told = knarr.ask(&["get", "revisions"]).well().out;
    assert!(told.contains("ContainerMissing : Unable to fetch image"), "{told}");
    assert_eq!(knarr.get("hello", "/").text(), "two");
    knarr.stop();
}

/// As a tag: what lay there when the revision was made is what it runs.
#[test]
fn an_image_of_this_machine_is_pinned_when_its_revision_is_made() {
    if !needs("busybox-static", Path::new("/bin/busybox").exists()) || !needs("root", is_root()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = format!("docker-archive:{}", archive(dir.path(), "one", 0).display());
    let place = Place::new();
    let hello = service("hello").program(&image, &[]);
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write("hello.yaml", &hello.yaml());
    let knarr = Knarr::at(&place, &[]);
    assert_eq!(knarr.get("hello", "/").text(), "one");
    let images = knarr.revision("hello-00001").images;
    assert!(images[0].starts_with(&format!("{image}@sha256:")), "{images:?}");
    let kept = knarr.ask(&["images", "rm", &images[0]]);
    assert!(
        kept.code == Some(1) && kept.err.contains("used by default/hello-00001"),
        "{kept:?}"
    );

    // It is built anew: neither a start from zero nor a restart of Knarr takes that.
    archive(dir.path(), "two", 0);
    knarr.until_zero("hello-00001");
    assert_eq!(knarr.get("hello", "/").text(), "one");
    knarr.stop();
    let knarr = Knarr::at(&place, &[]);
    assert_eq!(knarr.get("hello", "/").text(), "one");
    assert_eq!(knarr.revision("hello-00001").images, images);

    // Another template does, and the old revision is still the old one.
    place.write("hello.yaml", &hello.clone().with("example.com/mark", "b").yaml());
    knarr.until("the new revision is ready", |status| {
        status.services.iter().any(|it| it.latest_ready == "hello-00002")
    });
    assert_eq!(knarr.get("hello", "/").text(), "two");
    assert_ne!(knarr.revision("hello-00002").images, images);
    knarr.stop();

    // Who builds and runs means what was built.
    for page in ["three", "four"] {
        archive(dir.path(), page, 0);
        let knarr = Knarr::spawn(
            &place,
            place.knarr(&[&["run", &image, "--name", "now"][..], &ANY_PORTS].concat()),
        );
        knarr.until_ready();
        assert_eq!(knarr.get("now", "/").text(), page);
        knarr.stop();
    }
}

/// What is not used any more makes room; what does not fit is told with the numbers.
#[test]
fn the_quota_of_images_is_kept() {
    if !needs("busybox-static", Path::new("/bin/busybox").exists()) || !needs("root", is_root()) {
        return;
    }
    let images = tempfile::tempdir().unwrap();
    let image = |name: &str, mebibytes: usize| {
        let dir = images.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        format!("docker-archive:{}", archive(&dir, name, mebibytes).display())
    };
    let place = Place::new();
    let settings = place.path("knarr.toml");
    std::fs::write(&settings, "image-quota = '6Mi'\n").unwrap();
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write("one.yaml", &service("one").program(&image("one", 2), &[]).yaml());
    let knarr = Knarr::at(&place, &["--config", settings.to_str().unwrap()]);
    assert_eq!(knarr.get("one", "/").text(), "one");
    // Both together do not fit, and the first is in use.
    place.write("two.yaml", &service("two").program(&image("two", 3), &[]).yaml());
    let refused = |status: &control::status::Status| {
        let two = status.services.iter().find(|it| it.name == "two");
        two.is_some_and(|two| two.ready.message.contains("quota of 6291456 bytes"))
    };
    knarr.until("the second is refused", refused);
    assert_eq!(knarr.get("one", "/").text(), "one");
    // The first goes with its service, and the second gets its place.
    std::fs::remove_file(place.manifests().join("one.yaml")).unwrap();
    knarr.until("the second is ready", |status| {
        status.services.len() == 1 && status.services[0].ready.status == "True"
    });
    assert_eq!(knarr.get("two", "/").text(), "two");
    let listed = knarr.ask(&["images"]).well().out;
    assert!(!listed.contains("/one/"), "{listed}");
}
