//! Short texts on a child's stack: paths of descriptors, mount options with ids that only the child's namespace has.

use super::Birth;
use crate::spawner::protocol::Owner;

/// A NUL-terminated text that never allocates; what does not fit is cut, and the kernel then refuses it.
pub(super) struct Text {
    bytes: [u8; Self::SIZE],
    length: usize,
}

impl Text {
    const SIZE: usize = 4096;

    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; Self::SIZE],
            length: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
        self.bytes[0] = 0;
    }

    pub(super) fn push(&mut self, more: &[u8]) {
        for byte in more {
            if self.length + 1 < Self::SIZE {
                self.bytes[self.length] = *byte;
                self.length += 1;
                self.bytes[self.length] = 0;
            }
        }
    }

    pub(super) fn number(&mut self, number: u64) {
        let mut digits = [0u8; 20];
        let (mut rest, mut at) = (number, digits.len());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    /// Mount options, with the owner as the host numbers it.
    pub(super) fn options(&mut self, options: &[u8], birth: &Birth, owner: Option<Owner>) {
        self.push(options);
        let Some(owner) = owner else { return };
        for (name, id) in [(&b"uid="[..], owner.uid), (&b"gid="[..], Some(owner.gid))] {
            if let Some(id) = id {
                if self.length > 0 {
                    self.push(b",");
                }
                self.push(name);
                self.number(birth.on_host(id).into());
            }
        }
    }

    /// Valid while this text is, and unchanged.
    pub(super) fn address(&self) -> usize {
        self.bytes.as_ptr() as usize
    }
}
