//! Egress: the one way out of a cell whose network is `proxy`.
//!
//! Such a cell has a network namespace with loopback alone. A listening socket
//! that was opened *in* it is handed out to a process of the host's side, one
//! a cell (`lazarus cell-egress`, see [`start`]), which speaks CONNECT and
//! plain HTTP there and connects to the hosts that the cell's [`Rules`] name.
//! A process of its own, so that the daemon can be stopped or replaced without
//! breaking a connection, and so that what a cell says to its proxy is not read
//! in the process that holds every other cell's secrets.
//!
//! What a request passes, in this order:
//!
//! 1. its head is read, 8 KiB and 10 s at most; [`Token`];
//! 2. the name and port are checked against the rules;
//! 3. the proxy itself looks the name up, once, and checks *every* address:
//!    none may be private, of this machine, a metadata service's, or any of
//!    those in disguise (`address.rs`);
//! 4. it connects to an address that it checked;
//! 5. a tunnel has to begin with a TLS ClientHello for the same name
//!    (`hello.rs`, `tunnel.rs`); a plain request is rewritten for that host and
//!    sent on alone, over a connection of its own.
//!
//! Counters and refusals ([`Report`], [`Refusal`]) lie in the proxy's directory
//! and are there after its end. No path, query, header or token is in them.

mod address;
mod hello;
mod process;
mod proxy;
mod record;
mod rules;
mod stream;
mod token;
mod tunnel;

pub use lazarus_core::hosts::{
    AddressRange, Asked, Host, HostName, HostRule, NAME_MAX, NameError, RangeError, RuleError,
};
pub use process::{Spec, StartError, User, lives, main, start};
pub use proxy::{HostNetwork, Outside, Proxy, ProxyLimits, REFUSED};
pub use record::{Count, LINE_MAX, LOG_MAX, REFUSALS, REPORT, Reason, Record, Refusal, Report, refusals};
pub use rules::{Permit, Rules};
pub use stream::{Listener, Stream};
pub use token::{NotAToken, Token};
