//! A spec as written in `config-instances`.

use std::collections::BTreeMap;

use super::Toleration;
use crate::resources::{Quantity, mirror};

mirror! {
    /// One entry of `specs`, as written.
    pub struct RawSpec {
        name: String = "name",
        pool: String = "pool",
        cpu: Option<Quantity> = "cpu",
        memory: Option<Quantity> = "memory",
        price: String = "price",
        memory_price: String = "memory-price",
        granularity: String = "granularity",
        minimum: String = "minimum",
        start: Option<RawStart> = "start",
        burst: Option<RawBurst> = "burst",
        stock: Option<i64> = "stock",
        in_place: bool = "in-place",
        throttled: bool = "throttled",
        slow: Option<Quantity> = "slow",
        node_selector: BTreeMap<String, String> = "node-selector",
        tolerations: Vec<Toleration> = "tolerations",
        annotations: BTreeMap<String, String> = "annotations",
    }

    /// `start`, as written.
    pub struct RawStart {
        median: String = "median",
        sigma: Option<Quantity> = "sigma",
    }

    /// `burst`, as written.
    pub struct RawBurst {
        baseline: String = "baseline",
        credits_per_hour: Option<Quantity> = "credits-per-hour",
        most: Option<Quantity> = "most",
    }
}
