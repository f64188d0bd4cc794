//! How far a pull is, layer by layer.

use manifests::units::Bytes;

use crate::digest::Digest;

/// Is told how a pull goes. Calls come often and from several tasks: they must be quick.
pub trait Progress: Send + Sync {
    /// The image's layers are known, lowest first: their digests as the manifest has them, and compressed sizes.
    fn layers(&self, layers: &[(Digest, Bytes)]) {
        let _ = layers;
    }

    /// A layer, by its digest in the manifest, has come this far.
    fn stage(&self, layer: &Digest, stage: Stage);
}

/// Where a layer is. Download and unpacking overlap: bytes are unpacked as they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// For its turn, or for another process that fetches the same layer.
    Waiting,
    /// Bytes so far, of how many.
    Downloading {
        /// So far.
        done: Bytes,
        /// Of the manifest.
        total: Bytes,
    },
    /// All bytes are here, the unpacker has not finished yet.
    Unpacking,
    /// Unpacked and the right content: being made to last.
    Verifying,
    /// In the store.
    Done,
    /// Was there already.
    Present,
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _layer: &Digest, _stage: Stage) {}
}
