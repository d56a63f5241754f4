//! Processes of the host, the first process of the sandbox, other agents.

use crate::attempt::{Attempt, said, signalled};

pub const ATTEMPTS: &[Attempt] = &[
    said("see a process of the host", "see {victim} victim"),
    said("trace a process of the host", "ptrace {victim}"),
    said("trace the sandbox's first process", "ptrace {init}"),
    said("read the memory of a process of the host", "vm-read {victim}"),
    said("read the memory of the sandbox's first process", "vm-read {init}"),
    said("write the memory of a process of the host", "vm-write {victim}"),
    said("write the memory of the sandbox's first process", "vm-write {init}"),
    said("open /proc/PID/mem of a process of the host", "proc-file {victim} mem write"),
    said("open /proc/PID/mem of the first process", "proc-file {init} mem write"),
    said("read the environment of a process of the host", "proc-file {victim} environ"),
    said("read the environment of the first process", "proc-file {init} environ"),
    said("read the environment of another agent", "proc-file {bystander} environ"),
    said("take a descriptor of a process of the host", "pidfd-getfd {victim}"),
    said("take a descriptor of the first process", "pidfd-getfd {init}"),
    signalled("signal a process of the host", "kill {victim} 10"),
    signalled("signal a process of the host by descriptor", "pidfd-signal {victim} 10"),
    signalled("have the kernel signal a process of the host", "sigio {victim}"),
    said("signal the daemon", "kill {daemon} 0"),
    said("signal the keeper", "kill {keeper} 0"),
    said("signal another agent", "kill {bystander} 0"),
    said("read the limits of a process of the host", "prlimit {victim}"),
    said("change the priority of a process of the host", "priority {victim}"),
    said("change the processors of a process of the host", "affinity {victim}"),
    said("compare kernel objects of a process of the host", "kcmp {victim}"),
];
