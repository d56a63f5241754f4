//! Hosts as people name them: names, rules about them, ranges of addresses.
//! Proposals, profiles, the configuration and the egress proxy read them with
//! the same code, so that what is compared was spelt one way. Nothing here asks
//! a resolver or the network.

mod name;
mod range;
mod rule;

pub use name::{Asked, Host, HostName, NAME_MAX, NameError};
pub use range::{AddressRange, RangeError};
pub use rule::{HostRule, RuleError};
