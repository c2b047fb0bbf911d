//! Setters for what embedders fill in: `Settings::default().with_ports(ports)`.
//!
//! Types that may get more fields are `#[non_exhaustive]`, so that a new one breaks no program. A program outside of this
//! crate cannot write such a type as a literal, so each has a constructor with what it needs, and a setter for the rest.

/// One setter for each line, inside an `impl`: its name, the field that it sets, and what it takes; behind `=>` what the
/// field becomes, where that is something else.
macro_rules! setters {
    (@value $field:ident) => {
        $field
    };
    (@value $field:ident $value:expr) => {
        $value
    };
    ($($(#[$attribute:meta])* $setter:ident($field:ident: $taken:ty $(=> $value:expr)?);)+) => {
        $(
            $(#[$attribute])*
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $setter(mut self, $field: $taken) -> Self {
                self.$field = setters!(@value $field $($value)?);
                self
            }
        )+
    };
}
