//! Which stage a run is in, and when one ends whose length nobody knew before. Pure.

use std::time::Duration;

use crate::knarr::KnarrState;
use crate::scenario::{Length, Stage};

/// When a stage ran, since the start of the run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    /// It was to end by a condition that never came.
    pub(crate) gave_up: bool,
}

/// How far a run is.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// Those that are over.
    spans: Vec<Span>,
}

/// From the decision that a stage ends to its end, so that every thread hears of it before the next one begins.
const MARGIN: Duration = Duration::from_millis(2);

impl Course {
    /// Index of the stage that runs.
    pub(crate) fn stage(&self) -> usize {
        self.spans.len()
    }

    /// Goes on to `now`; which stages end when, as far as threads do not know. `looked` is what a Knarr server said, and
    /// when it was asked: an answer from before a stage says nothing of it.
    pub(crate) fn advance(
        &mut self,
        stages: &[Stage],
        now: Duration,
        looked: Option<(Duration, &KnarrState)>,
    ) -> Vec<(usize, Duration)> {
        let mut ends = Vec::new();
        while let Some(stage) = stages.get(self.spans.len()) {
            let start = self.start();
            let span = match &stage.length {
                Length::For(duration) if now >= start + *duration => Span {
                    start,
                    end: start + *duration,
                    gave_up: false,
                },
                Length::Until { condition, at_most } if now >= start => {
                    let came = looked.is_some_and(|(at, state)| at >= start && condition.holds(state));
                    let gave_up = !came && now >= start + *at_most;
                    if !came && !gave_up {
                        break;
                    }
                    let end = now + MARGIN;
                    ends.push((self.spans.len(), end));
                    Span { start, end, gave_up }
                }
                Length::For(_) | Length::Until { .. } => break,
            };
            self.push(span, stages);
        }
        ends
    }

    /// A stage is over, and those beside it with it.
    fn push(&mut self, span: Span, stages: &[Stage]) {
        self.spans.push(span.clone());
        while stages.get(self.spans.len()).is_some_and(|stage| stage.beside) {
            let gave_up = false;
            self.spans.push(Span { gave_up, ..span });
        }
    }

    /// The run is over at `now`: the stages that ran, the last one perhaps not to its end.
    pub(crate) fn finish(mut self, stages: &[Stage], now: Duration) -> Vec<Span> {
        self.advance(stages, now, None);
        let start = self.start();
        if self.spans.len() < stages.len() && now > start {
            let span = Span {
                start,
                end: now,
                gave_up: false,
            };
            self.push(span, stages);
        }
        self.spans
    }

    fn start(&self) -> Duration {
        self.spans.last().map_or(Duration::ZERO, |span| span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Arrivals;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn stages() -> Vec<Stage> {
        let quiet = |name: &str, length| Stage {
            length,
            ..Stage::new(name, Arrivals::Silence, Duration::ZERO)
        };
        let until = Length::Until {
            condition: "replicas == 0".parse().expect("a condition"),
            at_most: ms(5_000),
        };
        vec![
            quiet("a", Length::For(ms(1_000))),
            quiet("b", until),
            quiet("c", Length::For(ms(500))),
        ]
    }

    fn state(replicas: u64) -> KnarrState {
        KnarrState {
            replicas,
            ..KnarrState::default()
        }
    }

    #[test]
    fn a_stage_ends_when_its_condition_comes_seen_after_its_start() {
        let (stages, mut course) = (stages(), Course::default());
        assert!(course.advance(&stages, ms(999), Some((ms(999), &state(0)))).is_empty());
        assert_eq!(course.stage(), 0);
        assert!(
            course
                .advance(&stages, ms(1_010), Some((ms(990), &state(0))))
                .is_empty(),
            "seen before"
        );
        assert!(
            course
                .advance(&stages, ms(1_100), Some((ms(1_050), &state(2))))
                .is_empty()
        );
        assert_eq!(course.stage(), 1);
        let ends = course.advance(&stages, ms(1_200), Some((ms(1_150), &state(0))));
        assert_eq!(ends, [(1, ms(1_202))]);
        assert!(course.advance(&stages, ms(1_702), None).is_empty());
        assert_eq!(course.stage(), 3);
        let spans = course.finish(&stages, ms(1_800));
        assert_eq!((spans.len(), spans[2].end, spans[1].gave_up), (3, ms(1_702), false));
    }

    #[test]
    fn what_runs_beside_a_stage_begins_and_ends_with_it() {
        let mut stages = stages();
        for leader in [2, 1, 0] {
            let beside = stages[leader].with_clients(3);
            stages.insert(leader + 1, beside);
        }
        let mut course = Course::default();
        assert!(course.advance(&stages, ms(999), None).is_empty());
        assert_eq!(course.stage(), 0);
        assert!(course.advance(&stages, ms(1_000), None).is_empty());
        assert_eq!(course.stage(), 2);
        assert_eq!(
            course.advance(&stages, ms(6_000), None),
            [(2, ms(6_002))],
            "threads hear of the end of the stage itself"
        );
        let spans = course.finish(&stages, ms(6_100));
        let found: Vec<_> = spans.iter().map(|it| (it.start, it.end, it.gave_up)).collect();
        let (a, c) = ((ms(0), ms(1_000), false), (ms(6_002), ms(6_100), false));
        assert_eq!(
            found,
            [a, a, (ms(1_000), ms(6_002), true), (ms(1_000), ms(6_002), false), c, c]
        );
    }

    #[test]
    fn a_condition_that_never_comes_is_given_up() {
        let (stages, mut course) = (stages(), Course::default());
        assert!(
            course
                .advance(&stages, ms(5_999), Some((ms(5_990), &state(1))))
                .is_empty()
        );
        assert_eq!(course.advance(&stages, ms(6_000), None), [(1, ms(6_002))]);
        let spans = course.finish(&stages, ms(6_100));
        assert_eq!(
            (spans[1].gave_up, &spans[2]),
            (
                true,
                &Span {
                    start: ms(6_002),
                    end: ms(6_100),
                    gave_up: false
                }
            )
        );
    }
}
