//! Egress: the only way out of a cell whose network is `proxy`.
//!
//! Such a cell has a network namespace with nothing but loopback. A listening socket that was
//! opened *inside* it is handed to a process on the host's side (`lazarus cell-egress`, one for
//! each cell, see [`start`]). That process speaks CONNECT and plain HTTP on the socket and connects
//! to the hosts that the cell's [`Rules`] name. It is a separate process for two reasons: the
//! daemon can be stopped or replaced without breaking connections, and untrusted input of one cell
//! is never parsed in the process that holds the secrets of all others.
//!
//! Each request goes through these checks, in this order:
//!
//! 1. its head is read, at most 8 KiB within 10 s, and its [`Token`] is checked;
//! 2. the name and port are checked against the rules;
//! 3. the proxy itself resolves the name, once, and checks *every* address: none may be private,
//!    this machine's or a metadata service's, in any notation (`address.rs`);
//! 4. it connects to one of the checked addresses;
//! 5. a tunnel must begin with a TLS ClientHello for the same name (`hello.rs`, `tunnel.rs`); a
//!    plain request is rewritten for that host and forwarded over a connection of its own.
//!
//! Counters and refusals ([`Report`], [`Refusal`]) are written to the proxy's directory and stay
//! there after it ends. They contain no path, query, header or token.

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
