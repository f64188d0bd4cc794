//! Which part of a revision's sandboxes is this gateway's, and how many requests that part takes. PURE.
//!
//! Knative: `pkg/activator/net` throttler. Alone, a gateway has all of them; with several, sandboxes with
//! a limit are dealt out, so that the limit can be kept without asking anybody.

use std::ops::Range;

use manifests::units::ContainerConcurrency;

/// Knative's largest capacity, of a revision without a limit that has at least one backend.
pub const MAX_CAPACITY: u32 = i32::MAX as u32;

/// The part of one gateway: a run of the sorted list, and perhaps one of the rest at its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Indices {
    /// Positions in the sorted list.
    pub run: Range<usize>,
    /// How many at the end of the list could not be dealt out evenly: the first gateways get one each.
    pub remnants: usize,
}

/// Deals `backends` out to `gateways` and returns the part of gateway number `me`. More gateways than backends share:
/// each has one. `gateways` must be at least 1.
pub fn pick_indices(backends: usize, me: usize, gateways: usize) -> Indices {
    if gateways > backends {
        let begin = if backends == 0 { 0 } else { me % backends };
        return Indices {
            run: begin..begin + 1,
            remnants: 0,
        };
    }
    let size = backends / gateways;
    let begin = me * size;
    Indices {
        run: begin..begin + size,
        remnants: backends % gateways,
    }
}

/// The part of `sorted` that belongs to gateway number `me`; all of it when `me` is not known (`None`), when there is at
/// most one backend or exactly one gateway.
pub fn assign_slice<T: Clone>(sorted: &[T], me: Option<usize>, gateways: usize) -> Vec<T> {
    let Some(me) = me.filter(|_| sorted.len() > 1 && gateways != 1) else {
        return sorted.to_vec();
    };
    let Indices { run, remnants } = pick_indices(sorted.len(), me, gateways);
    let mut part = sorted[run].to_vec();
    if me < remnants {
        part.push(sorted[sorted.len() - remnants + me].clone());
    }
    part
}

/// How many requests this gateway may have in flight for a revision. `assigned` sandboxes are its own; when it has none
/// by address (a cluster IP stands for them), its share of all `backends` counts, at least 1.
pub fn calculate_capacity(limit: ContainerConcurrency, backends: usize, assigned: usize, gateways: usize) -> u32 {
    let Some(limit) = limit.limit() else {
        return if backends > 0 { MAX_CAPACITY } else { 0 };
    };
    let capacity = if assigned > 0 {
        saturating(limit, assigned)
    } else if backends > 0 {
        (saturating(limit, backends) / gateways.max(1) as u64).max(1)
    } else {
        0
    };
    u32::try_from(capacity).unwrap_or(MAX_CAPACITY).min(MAX_CAPACITY)
}

/// The position of `own` in the sorted addresses of the gateways that serve a revision; `None` when it is not one.
pub fn infer_index(sorted: &[String], own: &str) -> Option<usize> {
    sorted.binary_search_by(|address| address.as_str().cmp(own)).ok()
}

fn saturating(limit: u32, count: usize) -> u64 {
    u64::from(limit).saturating_mul(count as u64)
}
