//! A trace made larger: more functions like its own, over more hours. Pure.

use super::{Call, Calls, Function, MINUTE, Trace};

impl Trace {
    /// `functions` functions over `minutes` minutes: the trace again and again. The first functions are those of the trace;
    /// each copy has another phase, that is, it begins at another minute of the trace, and arrivals and durations of its
    /// own.
    #[must_use]
    pub fn tiled(&self, functions: usize, minutes: u32) -> Self {
        let length = self.minutes.end.saturating_sub(self.minutes.start).max(1);
        let originals = self.functions.len().max(1);
        let of = |index: usize| {
            let function = &self.functions[index % originals];
            let copy = index / originals;
            let shift = if copy == 0 {
                0
            } else {
                phase(&function.name, copy) % length
            };
            Function {
                name: match copy {
                    0 => function.name.clone(),
                    copy => format!("{}~{copy}", function.name),
                },
                calls: repeated(&function.calls, self.minutes.start, length, shift, minutes),
                ..function.clone()
            }
        };
        let count = if self.functions.is_empty() { 0 } else { functions };
        Self {
            name: self.name.clone(),
            minutes: self.minutes.start..self.minutes.start.saturating_add(minutes),
            functions: (0..count).map(of).collect(),
        }
    }
}

/// The calls of `length` minutes from `start` on, begun `shift` minutes later and repeated until `minutes` are full.
fn repeated(calls: &Calls, start: u32, length: u32, shift: u32, minutes: u32) -> Calls {
    match calls {
        Calls::PerMinute(counts) => {
            let at = |minute: u32| {
                let index = usize::try_from((minute + shift) % length).unwrap_or_default();
                counts.get(index).copied().unwrap_or_default()
            };
            Calls::PerMinute((0..minutes).map(at).collect())
        }
        Calls::Times(times) => {
            let (begin, period, end) = (MINUTE * start, MINUTE * length, MINUTE * (start + minutes));
            let mut all: Vec<Call> = Vec::new();
            for round in 0..=minutes / length + 1 {
                // One period early, so that what the shift moves before the beginning is made up for.
                let moved = times.iter().filter_map(|call| {
                    let at = (call.at + period * round).checked_sub(MINUTE * shift)?;
                    Some(Call { at, ..*call })
                });
                all.extend(moved.filter(|call| (begin..end).contains(&call.at)));
            }
            all.sort_by_key(|call| call.at);
            Calls::Times(all)
        }
    }
}

/// FNV-1a of a name and a number.
fn phase(name: &str, copy: usize) -> u32 {
    let bytes = name.bytes().chain(copy.to_le_bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trace::Trigger;

    fn trace(calls: Calls) -> Trace {
        Trace {
            name: "t".into(),
            minutes: 10..14,
            functions: vec![Function {
                name: "a".into(),
                app: String::new(),
                trigger: Trigger::Http,
                calls,
                durations: None,
                memory: None,
                start: None,
            }],
        }
    }

    #[test]
    fn copies_have_the_same_calls_at_another_phase() {
        let tiled = trace(Calls::PerMinute(vec![5, 0, 1, 2])).tiled(9, 8);
        assert_eq!((tiled.functions.len(), tiled.minutes.clone()), (9, 10..18));
        assert_eq!(tiled.functions[0].calls, Calls::PerMinute(vec![5, 0, 1, 2, 5, 0, 1, 2]));
        assert!(tiled.totals(&tiled.minutes).iter().all(|total| *total == 16));
        let phases: std::collections::BTreeSet<_> =
            tiled.functions.iter().map(|it| format!("{:?}", it.calls)).collect();
        assert!(phases.len() > 1, "{phases:?}");
        let first = tiled.minute(10, 1);
        assert!(
            first.iter().any(|call| call.function == 0) && first.windows(2).all(|pair| pair[0].at <= pair[1].at),
            "{first:?}"
        );
    }

    #[test]
    fn times_wrap_around() {
        let at = |seconds: &[u64]| Calls::Times(seconds.iter().map(|at| Duration::from_secs(*at).into()).collect());
        let calls = at(&[600, 661, 839]);
        assert_eq!(repeated(&calls, 10, 4, 0, 8), at(&[600, 661, 839, 840, 901, 1079]));
        assert_eq!(repeated(&calls, 10, 4, 1, 4), at(&[601, 779, 780]));
        assert_eq!(repeated(&calls, 10, 4, 1, 2), at(&[601]));
    }
}
