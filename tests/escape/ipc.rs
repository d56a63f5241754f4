//! System V and POSIX IPC of the host.

use crate::attempt::{Attempt, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("shared memory of the host, by key", "shm {ipc_key}"),
    said("shared memory of the host, by number", "shm-by-id {ipc_id}"),
    said("a message queue of the host", "msg {ipc_key}"),
    said("semaphores of the host", "sem {ipc_key}"),
    said("a POSIX message queue of the host", "mq {mark}"),
    said("POSIX shared memory of the host", "read /dev/shm/{mark} treasure"),
];
