//! The apps of `knarr demo --apps`: real servers in three languages, and the manifest that deploys them.

use std::fmt::Write as _;
use std::path::Path;

/// One sort of app.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// The small HTTP app behind the examples.
    Ours,
    /// `http.server` of Python's standard library.
    Python,
    /// Node's `http` module.
    Node,
}

impl Kind {
    /// Those that this machine can run: programs that sandboxes see.
    pub(super) fn here() -> Vec<Self> {
        let there = |program: &str| Path::new("/usr/bin").join(program).exists();
        let found = [
            (Self::Ours, true),
            (Self::Python, there("python3")),
            (Self::Node, there("node")),
        ];
        found
            .into_iter()
            .filter_map(|(kind, there)| there.then_some(kind))
            .collect()
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// `image:` and `args:` of its container.
    const fn container(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Ours => ("host:knarr", &["workload"]),
            Self::Python => ("host:/usr/bin/python3", &["-c", PYTHON]),
            Self::Node => ("host:/usr/bin/node", &["-e", NODE]),
        }
    }

    /// What a start is sure to need, in MiB: what admission goes by until the app was measured.
    const fn memory(self) -> u32 {
        match self {
            Self::Ours => 2,
            Self::Python => 12,
            Self::Node => 24,
        }
    }
}

/// The name of the `nth` service.
pub(super) fn name(nth: usize, kind: Kind) -> String {
    format!("{}-{nth:04}", kind.name())
}

/// All services, at zero, frozen when idle.
pub(super) fn manifest(apps: &[Kind]) -> String {
    let mut yaml = SETTINGS.to_owned();
    for (nth, &kind) in apps.iter().enumerate() {
        let (image, args) = kind.container();
        // A JSON array is YAML, whatever is in it.
        let args = serde_json::Value::from(args);
        let (name, memory) = (name(nth, kind), kind.memory());
        let written = writeln!(
            yaml,
            "---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {name}}}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/initial-scale: \"0\"
        knarr.dev/idle: frozen
        knarr.dev/freeze-delay: 2s
        knarr.dev/server-timing: enabled
    spec:
      containers:
        - image: {image}
          args: {args}
          resources: {{requests: {{memory: {memory}Mi}}}}"
        );
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    yaml
}

const SETTINGS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: config-autoscaler, namespace: knative-serving}
data:
  stable-window: 6s
  scale-to-zero-grace-period: 1s
  allow-zero-initial-scale: \"true\"
";

const PYTHON: &str = r"
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class App(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '6')
        self.end_headers()
        self.wfile.write(b'hello\n')
    def log_message(self, *_):
        pass
ThreadingHTTPServer(('', int(os.environ['PORT'])), App).serve_forever()
";

const NODE: &str = r"require('http').createServer((_, answer) => answer.end('hello\n')).listen(process.env.PORT)";

#[cfg(test)]
mod tests {
    use manifests::bundle::{self, Input};

    use super::*;

    #[test]
    fn every_kind_is_a_right_manifest() {
        let apps = [Kind::Ours, Kind::Python, Kind::Node];
        let input = Input {
            name: "apps.yaml".to_owned(),
            text: manifest(&apps),
        };
        let checked = bundle::bundle(&[input], None);
        assert!(checked.problems.is_empty(), "{:#?}", checked.problems);
        assert_eq!(checked.bundle.objects.len(), apps.len());
    }
}
