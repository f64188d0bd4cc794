//! The macro that writes a resource type: the Rust struct, its JSON as Go prints it, and its schema, from one list.
//!
//! ```text
//! mirror! { pub struct Port { name: String = "name", port: i32 = "containerPort" always } }
//!                             omitted when empty ┘   printed even when empty ┘
//! ```
//!
//! Go's `omitempty` drops empty strings, lists and maps, zero numbers, `false` and nil pointers, but never structs: hence
//! the `"metadata":{}` and `"resources":{}` of Kubernetes objects. `null` means "not given" for every field.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{IntOrString, Quantity};

/// What JSON a type accepts. One static tree for each resource, read by [`crate::read`].
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A string.
    String,
    /// A string with a point in time as in RFC 3339.
    Time,
    /// A string of base64.
    Base64,
    /// `true` or `false`.
    Bool,
    /// A whole number between the two bounds, both included.
    Int(i64, i64),
    /// A port number or a port name.
    IntOrString,
    /// A Kubernetes quantity: `250m`, `1Gi`, `2`.
    Quantity,
    /// Any JSON; fields that Knative refuses as a whole are not looked into.
    Any,
    /// A list of one shape.
    List(&'static Self),
    /// An object with free keys and values of one shape.
    Map(&'static Self),
    /// An object with known fields.
    Object(&'static ObjectShape),
}

/// The fields of an object.
#[derive(Debug)]
pub struct ObjectShape {
    /// The Rust type that mirrors it; for messages and tests.
    pub name: &'static str,
    /// Its fields in Go's order.
    pub fields: &'static [FieldShape],
}

/// One field of an object.
#[derive(Debug)]
pub struct FieldShape {
    /// The JSON name.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
}

impl ObjectShape {
    /// The shape of the field called `name`.
    pub fn field(&self, name: &str) -> Option<&'static Shape> {
        self.fields
            .iter()
            .find(|field| field.name == name)
            .map(|field| &field.shape)
    }
}

/// A type that can stand in a resource.
pub trait Mirror: Default + PartialEq {
    /// The JSON it accepts.
    const SHAPE: Shape;

    /// Whether Go's `omitempty` leaves it out.
    fn is_empty(&self) -> bool;
}

/// Reads `null` as the empty value, as Go does.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

macro_rules! leaf {
    ($($ty:ty, $shape:expr, $empty:expr;)*) => { $(
        impl Mirror for $ty {
            const SHAPE: Shape = $shape;
            fn is_empty(&self) -> bool {
                let empty: fn(&Self) -> bool = $empty;
                empty(self)
            }
        }
    )* };
}

leaf! {
    String, Shape::String, Self::is_empty;
    bool, Shape::Bool, |v| !*v;
    i32, Shape::Int(i32::MIN as i64, i32::MAX as i64), |v| *v == 0;
    i64, Shape::Int(i64::MIN, i64::MAX), |v| *v == 0;
    IntOrString, Shape::IntOrString, |_| false;
    Quantity, Shape::Quantity, |_| false;
    Value, Shape::Any, Self::is_null;
}

impl<T: Mirror> Mirror for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

impl<T: Mirror> Mirror for Box<T> {
    const SHAPE: Shape = T::SHAPE;
    fn is_empty(&self) -> bool {
        T::is_empty(self)
    }
}

impl<T: Mirror + 'static> Mirror for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Mirror + 'static> Mirror for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map(&T::SHAPE);
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

/// Writes a mirror type. See the head of this file.
macro_rules! mirror {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident {
            $( $(#[$field_doc:meta])* $field:ident : $ty:ty = $json:literal $($how:ident)?, )*
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                #[doc = concat!("`", $json, "`.")]
                $(#[$field_doc])*
                #[serde(rename = $json, deserialize_with = "crate::resources::mirror::nullable")]
                pub $field: $ty,
            )*
        }

        impl $crate::resources::Mirror for $name {
            const SHAPE: $crate::resources::Shape = $crate::resources::Shape::Object(&$crate::resources::ObjectShape {
                name: stringify!($name),
                fields: &[$( $crate::resources::FieldShape {
                    name: $json,
                    shape: mirror!(@shape $ty $(, $how)?),
                }, )*],
            });
            fn is_empty(&self) -> bool {
                false
            }
        }

        impl $name {
            /// The JSON names of all fields that differ from Go's zero value, in Go's order.
            pub fn set_fields(&self) -> Vec<&'static str> {
                let zero = Self::default();
                let mut set = Vec::new();
                $( if self.$field != zero.$field { set.push($json); } )*
                let _ = zero;
                set
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = to.serialize_map(None)?;
                $( if mirror!(@always $($how)?) || !$crate::resources::Mirror::is_empty(&self.$field) {
                    map.serialize_entry($json, &self.$field)?;
                } )*
                map.end()
            }
        }
    )* };
    (@always) => { false };
    (@always time) => { false };
    (@always always) => { true };
    (@shape $ty:ty) => { <$ty as $crate::resources::Mirror>::SHAPE };
    (@shape $ty:ty, always) => { <$ty as $crate::resources::Mirror>::SHAPE };
    (@shape $ty:ty, time) => { $crate::resources::Shape::Time };
}
pub(crate) use mirror;
