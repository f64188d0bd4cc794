//! Names of things: cheap to clone, checked where they are made, never mixed up.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// `NAMESPACE/NAME`. There may be a hundred thousand revisions, each named in a dozen places: a name is one word there.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "Pair<'static>")]
struct Parts {
    text: Box<str>,
    /// Where the slash stands.
    slash: usize,
}

impl Parts {
    fn new(namespace: &str, name: &str) -> Self {
        Self {
            text: format!("{namespace}/{name}").into(),
            slash: namespace.len(),
        }
    }

    fn both(&self) -> (&str, &str) {
        (&self.text[..self.slash], &self.text[self.slash + 1..])
    }
}

impl Ord for Parts {
    fn cmp(&self, other: &Self) -> Ordering {
        self.both().cmp(&other.both())
    }
}

impl PartialOrd for Parts {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Pair<'a> {
    namespace: Cow<'a, str>,
    name: Cow<'a, str>,
}

impl From<Pair<'_>> for Parts {
    fn from(pair: Pair<'_>) -> Self {
        Self::new(&pair.namespace, &pair.name)
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (namespace, name) = self.both();
        Pair {
            namespace: namespace.into(),
            name: name.into(),
        }
        .serialize(to)
    }
}

/// A namespaced object name. `RevisionId` and its siblings are the same pair with different meanings.
macro_rules! namespaced {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Arc<Parts>);

        impl $name {
            /// Both parts must already be valid Kubernetes names; validation has happened in the reader.
            pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
                Self(Arc::new(Parts::new(namespace.as_ref(), name.as_ref())))
            }
            /// The Kubernetes namespace.
            pub fn namespace(&self) -> &str {
                self.0.both().0
            }
            /// The name within the namespace.
            pub fn name(&self) -> &str {
                self.0.both().1
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

namespaced! {
    /// A revision: one immutable version of code and configuration.
    RevisionId
}
namespaced! {
    /// A Service, Configuration or Route by namespace and name; which one, the field says.
    ObjectId
}

/// One running instance of a revision, unique for the life of a data directory; also the sandbox's `HOSTNAME`.
///
/// Printed as `REVISION-xxxxx`, as Knative prints pod names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SandboxId(Arc<str>);

impl SandboxId {
    /// `name` must be a DNS-1123 label: it becomes a host name, a directory and a cgroup.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A gateway process, as named in its load reports.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct GatewayId(pub Arc<str>);

/// Counts whole pictures of one thing: a picture older than the one in place is refused.
///
/// `epoch` is the writer's term (leader epoch, or the number of Knarr's start); `counter` its own count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Generation {
    /// The writer's term; a later term beats any counter of an earlier one.
    pub epoch: u64,
    /// Counts up within the term.
    pub counter: u64,
}

impl Generation {
    /// The first generation of a term.
    pub const fn first(epoch: u64) -> Self {
        Self { epoch, counter: 1 }
    }
    /// The generation after this one, in the same term.
    #[must_use]
    pub const fn next(self) -> Self {
        Self {
            epoch: self.epoch,
            counter: self.counter + 1,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}
