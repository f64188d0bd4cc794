//! Manifests of tests: the workload app with what a test varies, and windows short enough to wait for.

use std::fmt::Write as _;

/// Shortest windows, and revisions that may begin at zero.
pub const SHORT_WINDOWS: (&str, &str) = (
    "config-autoscaler.yaml",
    "apiVersion: v1
kind: ConfigMap
metadata: {name: config-autoscaler, namespace: knative-serving}
data:
  stable-window: 6s
  scale-to-zero-grace-period: 1s
  allow-zero-initial-scale: 'true'
",
);

/// A Service under construction; displays as YAML.
#[derive(Clone)]
pub struct Service {
    name: String,
    annotations: Vec<(String, String)>,
    concurrency: Option<u32>,
    timeout: Option<u32>,
    image: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    port: Option<u16>,
    probes: Vec<(String, String)>,
    memory_request: Option<String>,
}

/// The workload app, at zero until somebody asks.
pub fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        annotations: vec![("autoscaling.knative.dev/initial-scale".to_owned(), "0".to_owned())],
        concurrency: None,
        timeout: None,
        image: "host:knarr".to_owned(),
        args: vec!["workload".to_owned()],
        env: Vec::new(),
        port: None,
        probes: Vec::new(),
        memory_request: None,
    }
}

impl Service {
    /// An annotation of the template; `max-scale` means `autoscaling.knative.dev/max-scale`.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        let key = if key.contains('/') {
            key.to_owned()
        } else {
            format!("autoscaling.knative.dev/{key}")
        };
        self.annotations.retain(|(it, _)| *it != key);
        self.annotations.push((key, value.to_owned()));
        self
    }

    /// Starts once when it is new, as Knative's default.
    pub fn proven(mut self) -> Self {
        self.annotations.retain(|(key, _)| !key.ends_with("/initial-scale"));
        self
    }

    pub fn concurrency(mut self, limit: u32) -> Self {
        self.concurrency = Some(limit);
        self
    }

    pub fn timeout(mut self, seconds: u32) -> Self {
        self.timeout = Some(seconds);
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Another program instead of the workload app.
    pub fn program(mut self, image: &str, args: &[&str]) -> Self {
        image.clone_into(&mut self.image);
        self.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// `readinessProbe` and the like, in flow style.
    pub fn probe(mut self, kind: &str, text: &str) -> Self {
        self.probes.push((kind.to_owned(), text.to_owned()));
        self
    }

    pub fn memory_request(mut self, quantity: &str) -> Self {
        self.memory_request = Some(quantity.to_owned());
        self
    }

    pub fn yaml(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let mut text = format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {}\nspec:\n  template:\n",
            self.name
        );
        if !self.annotations.is_empty() {
            text += "    metadata:\n      annotations:\n";
            for (key, value) in &self.annotations {
                writeln!(text, "        {key}: {}", quoted(value)).unwrap();
            }
        }
        text += "    spec:\n";
        if let Some(limit) = self.concurrency {
            writeln!(text, "      containerConcurrency: {limit}").unwrap();
        }
        if let Some(seconds) = self.timeout {
            writeln!(text, "      timeoutSeconds: {seconds}").unwrap();
        }
        let args: Vec<String> = self.args.iter().map(|arg| quoted(arg)).collect();
        writeln!(text, "      containers:\n        - image: {}", quoted(&self.image)).unwrap();
        writeln!(text, "          args: [{}]", args.join(", ")).unwrap();
        if let Some(port) = self.port {
            writeln!(text, "          ports: [{{containerPort: {port}}}]").unwrap();
        }
        for (kind, probe) in &self.probes {
            writeln!(text, "          {kind}: {probe}").unwrap();
        }
        if let Some(quantity) = &self.memory_request {
            writeln!(text, "          resources: {{requests: {{memory: {quantity}}}}}").unwrap();
        }
        if !self.env.is_empty() {
            text += "          env:\n";
            for (name, value) in &self.env {
                writeln!(
                    text,
                    "            - name: {name}\n              value: {}",
                    quoted(value)
                )
                .unwrap();
            }
        }
        text + "---\n"
    }
}
