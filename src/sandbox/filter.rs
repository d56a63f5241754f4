//! The system calls that an agent may make: an allow-list, started from what
//! well-known container engines allow, then reduced.
//!
//! What is missing on purpose: new namespaces and mounts, tracing and reading
//! of other processes, keyrings, bpf, perf, userfaultfd, io_uring, modules,
//! kexec, clocks, quotas, swap, handles to files by number, raw and exotic
//! sockets, pushing characters into a terminal, another limit of core files.

use super::steps::StepError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;
use std::io;

/// A compiled filter.
#[derive(Clone)]
pub struct Filter(BpfProgram);

/// Namespaces that an agent may not make with `clone`.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64
    | 0x80; // CLONE_NEWTIME

/// The part of a socket's type that says which kind it is; the rest are flags.
const SOCK_KIND: u64 = 0xf;

fn rule(argument: u8, length: Len, op: Op, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![Condition::new(argument, length, op, value)?])
}

/// Which sockets an agent may make, besides pairs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Unix, IPv4, IPv6, routes: what is behind them is its own namespace's.
    All,
    /// IPv4 and IPv6: a path would lead to the host's services.
    Internet,
    /// None: "no network" where there is no network namespace.
    None,
}

/// Compiles the filter for this machine's architecture. With `pinned` an agent
/// may not choose its processors.
pub fn compile(sockets: Sockets, pinned: bool) -> Result<Filter, StepError> {
    let wrong = |e: seccompiler::BackendError| StepError {
        step: "compiling the system call filter".to_owned(),
        source: io::Error::other(e.to_string()),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(wrong)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = allowed().into_iter().map(|n| (n, vec![])).collect();
    let conditional = || -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::BackendError> {
        Ok(vec![
            (libc::SYS_clone, vec![rule(0, Len::Qword, Op::MaskedEq(CLONE_NEW), 0)?]),
            // Unix, IPv4, IPv6, and netlink for routes (getifaddrs) alone.
            (
                libc::SYS_socket,
                vec![
                    rule(0, Len::Dword, Op::Eq, libc::AF_UNIX as u64)?,
                    rule(0, Len::Dword, Op::Eq, libc::AF_INET as u64)?,
                    rule(0, Len::Dword, Op::Eq, libc::AF_INET6 as u64)?,
                    SeccompRule::new(vec![
                        Condition::new(0, Len::Dword, Op::Eq, libc::AF_NETLINK as u64)?,
                        Condition::new(2, Len::Dword, Op::Eq, 0)?,
                    ])?,
                ],
            ),
            (libc::SYS_socketpair, vec![rule(0, Len::Dword, Op::Eq, libc::AF_UNIX as u64)?]),
            // Neither characters into a terminal's input, nor the console's tricks.
            (
                libc::SYS_ioctl,
                vec![SeccompRule::new(vec![
                    Condition::new(1, Len::Dword, Op::Ne, libc::TIOCSTI)?,
                    Condition::new(1, Len::Dword, Op::Ne, 0x541C)?, // TIOCLINUX
                    Condition::new(1, Len::Dword, Op::Ne, 0x5423)?, // TIOCSETD
                ])?],
            ),
            // The ordinary personalities, and asking.
            (
                libc::SYS_personality,
                [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff]
                    .into_iter()
                    .map(|v| rule(0, Len::Dword, Op::Eq, v))
                    .collect::<Result<_, _>>()?,
            ),
        ])
    };
    rules.extend(conditional().map_err(wrong)?);
    if pinned {
        rules.remove(&libc::SYS_sched_setaffinity);
    }
    if sockets != Sockets::All {
        // One of a pair of datagram sockets can be turned to any path of the host (unix(7)); of the others
        // it stays with its twin.
        let pairs = || -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
            let kinds = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];
            kinds
                .into_iter()
                .map(|kind| {
                    SeccompRule::new(vec![
                        Condition::new(0, Len::Dword, Op::Eq, libc::AF_UNIX as u64)?,
                        Condition::new(1, Len::Dword, Op::MaskedEq(SOCK_KIND), kind as u64)?,
                    ])
                })
                .collect()
        };
        rules.insert(libc::SYS_socketpair, pairs().map_err(wrong)?);
    }
    match sockets {
        Sockets::All => {}
        Sockets::Internet => {
            let internet = || {
                Ok(vec![
                    rule(0, Len::Dword, Op::Eq, libc::AF_INET as u64)?,
                    rule(0, Len::Dword, Op::Eq, libc::AF_INET6 as u64)?,
                ])
            };
            rules.insert(libc::SYS_socket, internet().map_err(wrong)?);
        }
        Sockets::None => {
            rules.remove(&libc::SYS_socket);
        }
    }
    // clone3 has its flags behind a pointer that no filter can read: with
    // ENOSYS programs fall back to clone. The limit of core files stays as it
    // is; programs that want none make do with this answer.
    let core = u64::from(libc::RLIMIT_CORE);
    let no_core = || {
        SeccompRule::new(vec![Condition::new(1, Len::Dword, Op::Eq, core)?, Condition::new(2, Len::Qword, Op::Ne, 0)?])
    };
    let unknown = BTreeMap::from([
        (libc::SYS_clone3, vec![]),
        (libc::SYS_prlimit64, vec![no_core().map_err(wrong)?]),
        (libc::SYS_setrlimit, vec![rule(0, Len::Dword, Op::Eq, core).map_err(wrong)?]),
    ]);
    allow_list(rules, unknown, arch).map(Filter).map_err(wrong)
}

/// What seccompiler puts before its comparisons: the architecture is checked
/// (three instructions), then the call's number is loaded.
const PRELUDE: usize = 4;

/// The allow-list as a binary search over ranges of numbers, with seccompiler's
/// own comparisons for calls that depend on their arguments. When a filter is
/// loaded the kernel translates all of it and runs it for every number there
/// is: a plain list of 300 took 0.8 ms of a cell's start.
///
/// What `unknown` describes is answered with ENOSYS, all of a call where it has
/// no conditions.
fn allow_list(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mut unknown: BTreeMap<i64, Vec<SeccompRule>>,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let deny = SeccompAction::Errno(libc::EPERM as u32);
    let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
    let answer = |action: SeccompAction| {
        vec![sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: u32::from(action) }]
    };
    let mut prelude = vec![];
    // Each range from its first number up to the next one's.
    let mut ranges: Vec<(i64, BpfProgram)> = vec![(0, answer(deny.clone()))];
    let mut next = 0;
    let mut start = |at: i64, body: BpfProgram| match ranges.last_mut() {
        Some((last, known)) if *last == at => *known = body,
        Some((_, known)) if known.len() == 1 && body.len() == 1 && known[0].k == body[0].k => {}
        _ => ranges.push((at, body)),
    };
    for (number, conditions) in rules {
        if number != next {
            start(next, answer(deny.clone()));
        }
        let (conditions, yes, no) = match unknown.remove(&number) {
            Some(conditions) => (conditions, no_such_call.clone(), SeccompAction::Allow),
            None => (conditions, SeccompAction::Allow, deny.clone()),
        };
        if conditions.is_empty() {
            start(number, answer(yes));
        } else {
            let one = BTreeMap::from([(number, conditions)]);
            let program: BpfProgram = SeccompFilter::new(one, no, yes, arch)?.try_into()?;
            prelude = program[..PRELUDE].to_vec();
            start(number, program[PRELUDE..].to_vec());
        }
        next = number + 1;
    }
    start(next, answer(deny));
    prelude.extend(search(&ranges));
    Ok(prelude)
}

/// Goes to the range that holds the loaded number: by halves.
fn search(ranges: &[(i64, BpfProgram)]) -> BpfProgram {
    match ranges {
        [] => vec![],
        [(_, body)] => body.clone(),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let below = search(lower);
            let jump = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
            let mut program = vec![
                // Not below the upper half: over the lower one, however long.
                jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, upper[0].0 as u32),
                jump(libc::BPF_JMP | libc::BPF_JA, 0, 0, below.len() as u32),
            ];
            program.extend(below);
            program.extend(search(upper));
            program
        }
    }
}

/// Applies the filter to this process and all that it starts, for good.
pub fn apply(filter: &Filter) -> Result<(), StepError> {
    seccompiler::apply_filter(&filter.0).map_err(|e| StepError {
        step: "applying the system call filter".to_owned(),
        source: io::Error::other(e.to_string()),
    })
}

fn allowed() -> Vec<i64> {
    #[allow(clippy::wildcard_imports, reason = "the list is read as a list")]
    use libc::*;
    #[allow(unused_mut, reason = "some architectures have no old calls to add")]
    let mut list = vec![
        SYS_accept,
        SYS_accept4,
        SYS_bind,
        SYS_brk,
        SYS_capget,
        SYS_capset,
        SYS_chdir,
        SYS_clock_getres,
        SYS_clock_gettime,
        SYS_clock_nanosleep,
        SYS_clone3,
        SYS_close,
        SYS_close_range,
        SYS_connect,
        SYS_copy_file_range,
        SYS_dup,
        SYS_dup3,
        SYS_epoll_create1,
        SYS_epoll_ctl,
        SYS_epoll_pwait,
        SYS_epoll_pwait2,
        SYS_eventfd2,
        SYS_execve,
        SYS_execveat,
        SYS_exit,
        SYS_exit_group,
        SYS_faccessat,
        SYS_faccessat2,
        SYS_fadvise64,
        SYS_fallocate,
        SYS_fchdir,
        SYS_fchmod,
        SYS_fchmodat,
        SYS_fchown,
        SYS_fchownat,
        SYS_fcntl,
        SYS_fdatasync,
        SYS_fgetxattr,
        SYS_flistxattr,
        SYS_flock,
        SYS_fremovexattr,
        SYS_fsetxattr,
        SYS_fstat,
        SYS_fstatfs,
        SYS_fsync,
        SYS_ftruncate,
        SYS_futex,
        SYS_getcpu,
        SYS_getcwd,
        SYS_getdents64,
        SYS_getegid,
        SYS_geteuid,
        SYS_getgid,
        SYS_getgroups,
        SYS_getitimer,
        SYS_getpeername,
        SYS_getpgid,
        SYS_getpid,
        SYS_getppid,
        SYS_getpriority,
        SYS_getrandom,
        SYS_getresgid,
        SYS_getresuid,
        SYS_getrlimit,
        SYS_get_robust_list,
        SYS_getrusage,
        SYS_getsid,
        SYS_getsockname,
        SYS_getsockopt,
        SYS_gettid,
        SYS_gettimeofday,
        SYS_getuid,
        SYS_getxattr,
        SYS_inotify_add_watch,
        SYS_inotify_init1,
        SYS_inotify_rm_watch,
        SYS_kill,
        SYS_landlock_add_rule,
        SYS_landlock_create_ruleset,
        SYS_landlock_restrict_self,
        SYS_lgetxattr,
        SYS_linkat,
        SYS_listen,
        SYS_listxattr,
        SYS_llistxattr,
        SYS_lremovexattr,
        SYS_lseek,
        SYS_lsetxattr,
        SYS_madvise,
        SYS_membarrier,
        SYS_memfd_create,
        SYS_mincore,
        SYS_mkdirat,
        SYS_mlock,
        SYS_mlock2,
        SYS_mlockall,
        SYS_mmap,
        SYS_mprotect,
        SYS_mq_getsetattr,
        SYS_mq_notify,
        SYS_mq_open,
        SYS_mq_timedreceive,
        SYS_mq_timedsend,
        SYS_mq_unlink,
        SYS_mremap,
        SYS_msgctl,
        SYS_msgget,
        SYS_msgrcv,
        SYS_msgsnd,
        SYS_msync,
        SYS_munlock,
        SYS_munlockall,
        SYS_munmap,
        SYS_nanosleep,
        SYS_newfstatat,
        SYS_openat,
        SYS_openat2,
        SYS_pidfd_open,
        SYS_pidfd_send_signal,
        SYS_pipe2,
        SYS_pkey_alloc,
        SYS_pkey_free,
        SYS_pkey_mprotect,
        SYS_ppoll,
        SYS_prctl,
        SYS_pread64,
        SYS_preadv,
        SYS_preadv2,
        SYS_prlimit64,
        SYS_pselect6,
        SYS_pwrite64,
        SYS_pwritev,
        SYS_pwritev2,
        SYS_read,
        SYS_readahead,
        SYS_readlinkat,
        SYS_readv,
        SYS_recvfrom,
        SYS_recvmmsg,
        SYS_recvmsg,
        SYS_removexattr,
        SYS_renameat,
        SYS_renameat2,
        SYS_restart_syscall,
        SYS_rseq,
        SYS_rt_sigaction,
        SYS_rt_sigpending,
        SYS_rt_sigprocmask,
        SYS_rt_sigqueueinfo,
        SYS_rt_sigreturn,
        SYS_rt_sigsuspend,
        SYS_rt_sigtimedwait,
        SYS_rt_tgsigqueueinfo,
        SYS_sched_getaffinity,
        SYS_sched_getattr,
        SYS_sched_getparam,
        SYS_sched_get_priority_max,
        SYS_sched_get_priority_min,
        SYS_sched_getscheduler,
        SYS_sched_rr_get_interval,
        SYS_sched_setaffinity,
        SYS_sched_setattr,
        SYS_sched_setparam,
        SYS_sched_setscheduler,
        SYS_sched_yield,
        SYS_seccomp,
        SYS_semctl,
        SYS_semget,
        SYS_semop,
        SYS_semtimedop,
        SYS_sendfile,
        SYS_sendmmsg,
        SYS_sendmsg,
        SYS_sendto,
        SYS_setfsgid,
        SYS_setfsuid,
        SYS_setgid,
        SYS_setgroups,
        SYS_setitimer,
        SYS_setpgid,
        SYS_setpriority,
        SYS_setregid,
        SYS_setresgid,
        SYS_setresuid,
        SYS_setreuid,
        SYS_setrlimit,
        SYS_set_robust_list,
        SYS_setsid,
        SYS_setsockopt,
        SYS_set_tid_address,
        SYS_setuid,
        SYS_setxattr,
        SYS_shmat,
        SYS_shmctl,
        SYS_shmdt,
        SYS_shmget,
        SYS_shutdown,
        SYS_sigaltstack,
        SYS_signalfd4,
        SYS_splice,
        SYS_statfs,
        SYS_statx,
        SYS_symlinkat,
        SYS_sync,
        SYS_sync_file_range,
        SYS_syncfs,
        SYS_sysinfo,
        SYS_tee,
        SYS_tgkill,
        SYS_timer_create,
        SYS_timer_delete,
        SYS_timer_getoverrun,
        SYS_timer_gettime,
        SYS_timer_settime,
        SYS_timerfd_create,
        SYS_timerfd_gettime,
        SYS_timerfd_settime,
        SYS_times,
        SYS_tkill,
        SYS_truncate,
        SYS_umask,
        SYS_uname,
        SYS_unlinkat,
        SYS_utimensat,
        SYS_vmsplice,
        SYS_wait4,
        SYS_waitid,
        SYS_write,
        SYS_writev,
    ];
    #[cfg(target_arch = "x86_64")]
    list.extend([
        SYS_access,
        SYS_alarm,
        SYS_arch_prctl,
        SYS_chmod,
        SYS_chown,
        SYS_creat,
        SYS_dup2,
        SYS_epoll_create,
        SYS_epoll_ctl_old,
        SYS_epoll_wait,
        SYS_epoll_wait_old,
        SYS_eventfd,
        SYS_fork,
        SYS_futimesat,
        SYS_getdents,
        SYS_getpgrp,
        SYS_inotify_init,
        SYS_lchown,
        SYS_link,
        SYS_lstat,
        SYS_mkdir,
        SYS_mknod,
        SYS_mknodat,
        SYS_open,
        SYS_pause,
        SYS_pipe,
        SYS_poll,
        SYS_readlink,
        SYS_rename,
        SYS_rmdir,
        SYS_select,
        SYS_signalfd,
        SYS_stat,
        SYS_symlink,
        SYS_time,
        SYS_unlink,
        SYS_utime,
        SYS_utimes,
        SYS_vfork,
    ]);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter would say, for the instructions that a
    /// filter of seccompiler has.
    fn run(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let audit = if arch == TargetArch::x86_64 { 0xC000_003E } else { 0xC000_00B7_u32 };
        let mut data = vec![];
        data.extend(number.to_ne_bytes());
        data.extend(audit.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|a| a.to_ne_bytes()));
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let (class, k) = (u32::from(step.code), step.k);
            let branch = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            match class {
                0x20 => accumulator = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                0x54 => accumulator &= k,
                0x05 => at += k as usize,
                0x15 => at += branch(accumulator == k),
                0x25 => at += branch(accumulator > k),
                0x35 => at += branch(accumulator >= k),
                0x06 => return k,
                other => panic!("instruction {other:#x} is not among those of a filter"),
            }
        }
    }

    #[test]
    fn the_search_answers_for_every_number_what_the_plain_list_answers() {
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let masked = || vec![rule(0, Len::Qword, Op::MaskedEq(CLONE_NEW), 0).unwrap()];
        let one_of = || vec![rule(0, Len::Dword, Op::Eq, 1).unwrap(), rule(0, Len::Dword, Op::Eq, 2).unwrap()];
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = allowed().into_iter().map(|n| (n, vec![])).collect();
        rules.extend([(libc::SYS_clone, masked()), (libc::SYS_socket, one_of())]);
        let deny = SeccompAction::Errno(libc::EPERM as u32);
        let plain: BpfProgram =
            SeccompFilter::new(rules.clone(), deny, SeccompAction::Allow, arch).unwrap().try_into().unwrap();
        let searched = allow_list(rules, BTreeMap::new(), arch).unwrap();
        // The last is a number of the x32 ABI, which no filter may let through.
        for number in (0..1000).chain([u32::MAX, 0x4000_0000 + libc::SYS_write as u32]) {
            for first in [0, 1, 2, 3, CLONE_NEW, u64::MAX] {
                let arguments = [first, 0, 0, 0, 0, 0];
                assert_eq!(run(&plain, number, arguments), run(&searched, number, arguments), "{number}, {first:#x}");
            }
        }
        let (Filter(real), core) = (compile(Sockets::All, false).unwrap(), u64::from(libc::RLIMIT_CORE));
        let no_such_call = u32::from(SeccompAction::Errno(libc::ENOSYS as u32));
        let allow = u32::from(SeccompAction::Allow);
        for (number, arguments, answer) in [
            (libc::SYS_clone3, [0; 6], no_such_call),
            (libc::SYS_prlimit64, [0, core, 7, 0, 0, 0], no_such_call),
            (libc::SYS_prlimit64, [0, core, 0, 7, 0, 0], allow),
            (libc::SYS_prlimit64, [0, core + 1, 7, 0, 0, 0], allow),
            (libc::SYS_setrlimit, [core, 7, 0, 0, 0, 0], no_such_call),
            (libc::SYS_setrlimit, [core + 1, 7, 0, 0, 0, 0], allow),
        ] {
            assert_eq!(run(&real, number as u32, arguments), answer, "{number} {arguments:?}");
        }
        // Pairs that stay pairs, where paths lead to the host's services.
        let refused = u32::from(SeccompAction::Errno(libc::EPERM as u32));
        let pair = |kind: i32| [libc::AF_UNIX as u64, (kind | libc::SOCK_CLOEXEC) as u64, 0, 0, 0, 0];
        for sockets in [Sockets::None, Sockets::Internet, Sockets::All] {
            let Filter(program) = compile(sockets, false).unwrap();
            let answer = |kind| run(&program, libc::SYS_socketpair as u32, pair(kind));
            assert_eq!((answer(libc::SOCK_STREAM), answer(libc::SOCK_SEQPACKET)), (allow, allow), "{sockets:?}");
            assert_eq!(answer(libc::SOCK_DGRAM), if sockets == Sockets::All { allow } else { refused }, "{sockets:?}");
        }
        assert_ne!(run(&searched, libc::SYS_write as u32, [0; 6]), run(&searched, libc::SYS_mount as u32, [0; 6]));
    }
}
