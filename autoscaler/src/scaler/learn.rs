//! What is kept of a revision over a restart of Knarr, and taken up again.

use super::Scaler;
use super::course::Elsewhere;
use crate::learned::{Learned, program};

impl Scaler {
    /// What it has taught.
    pub(crate) fn learned(&self) -> Learned {
        Learned {
            program: program(&self.revision),
            starts: self.starts.clone(),
            upgrades: self.upgrades.clone(),
            thaws: self.thaws.clone(),
            peak: self.peak,
            rhythm: self.rhythm,
            usual: self.usual,
            elsewhere: self.elsewhere.iter().map(Elsewhere::learned).collect(),
            planner: self.mind.as_ref().and_then(|mind| mind.save()),
        }
    }

    /// Goes on from what it has taught before.
    pub(super) fn learn(&mut self, learned: Learned) {
        let Learned {
            program: _,
            starts,
            upgrades,
            thaws,
            peak,
            rhythm,
            usual,
            elsewhere,
            planner,
        } = learned;
        self.starts = starts;
        self.upgrades = upgrades;
        self.thaws = thaws;
        self.peak = peak;
        self.rhythm = rhythm;
        self.usual = usual;
        self.elsewhere = elsewhere.into_iter().map(Elsewhere::from_learned).collect();
        if let (Some(mind), Some(planner)) = (&mut self.mind, planner) {
            mind.go_on_from(&planner);
        }
    }
}
