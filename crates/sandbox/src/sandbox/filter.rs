//! The system calls that an agent may make: an allow-list, derived from what well-known container engines allow,
//! and then reduced.
//!
//! Left out on purpose: new namespaces and mounts, tracing and reading other processes, keyrings, bpf, perf,
//! userfaultfd, io_uring, modules, kexec, clocks, quotas, swap, file handles by number, raw and rare kinds of
//! sockets, pushing characters into a terminal, and changing the limit on core files.
//!
//! These calls are [`refused`] with EPERM. A call that is on neither list fails with ENOSYS, as on a kernel that is
//! too old to have it: programs and libraries fall back to an older call only for that error.

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

/// Flags of `clone` for namespaces that an agent may not make.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64
    | 0x80; // CLONE_NEWTIME

/// The bits of a socket's type that say which kind it is; the rest are flags.
const SOCK_KIND: u64 = 0xf;

fn rule(argument: u8, length: Len, op: Op, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![Condition::new(argument, length, op, value)?])
}

/// Which sockets an agent may create, apart from pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Unix, IPv4, IPv6 and routing sockets: they lead only to the agent's own network namespace.
    All,
    /// IPv4 and IPv6 only: a unix socket's path could lead to the host's services.
    Internet,
    /// None: this is "no network" without a network namespace.
    None,
}

/// Compiles the filter for this machine's architecture. With `pinned`, an agent may not change its processor
/// affinity. With `tracing`, it may trace and read other processes; use this only for an agent in a PID namespace
/// of its own, which contains nobody else's processes.
pub fn compile(sockets: Sockets, pinned: bool, tracing: bool) -> Result<Filter, StepError> {
    let wrong = |e: seccompiler::BackendError| StepError {
        step: "compiling the system call filter".to_owned(),
        source: io::Error::other(e.to_string()),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(wrong)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = allowed().into_iter().map(|n| (n, vec![])).collect();
    let conditional = || -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::BackendError> {
        Ok(vec![
            (libc::SYS_clone, vec![rule(0, Len::Qword, Op::MaskedEq(CLONE_NEW), 0)?]),
            // Unix, IPv4, IPv6; and of netlink only routes, for getifaddrs.
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
            // Neither pushing characters into a terminal's input nor the console's special calls.
            (
                libc::SYS_ioctl,
                vec![SeccompRule::new(vec![
                    Condition::new(1, Len::Dword, Op::Ne, libc::TIOCSTI)?,
                    Condition::new(1, Len::Dword, Op::Ne, 0x541C)?, // TIOCLINUX
                    Condition::new(1, Len::Dword, Op::Ne, 0x5423)?, // TIOCSETD
                ])?],
            ),
            // The ordinary personalities, and reading the current one.
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
    if tracing {
        rules.extend(TRACING.map(|number| (number, vec![])));
    }
    if sockets != Sockets::All {
        // A datagram socket of a pair can be redirected to any path of the host (unix(7)); sockets of other types
        // stay connected to their twin.
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
    let pair = |first, second| SeccompRule::new(vec![first, second]);
    let core = u64::from(libc::RLIMIT_CORE);
    let own = || -> Result<BTreeMap<i64, Answer>, seccompiler::BackendError> {
        let is_core = || Condition::new(1, Len::Dword, Op::Eq, core);
        let sets = || Condition::new(2, Len::Qword, Op::Ne, 0);
        Ok(BTreeMap::from([
            // Its flags are behind a pointer, which no filter can read. With ENOSYS, programs fall back to clone.
            (libc::SYS_clone3, Answer { rules: vec![], errno: libc::ENOSYS }),
            // The limit on core files cannot be changed. Programs that want none (sanitizers, `ulimit -c 0`) take
            // an error for a failure of their own and exit, so this pretends to succeed.
            (libc::SYS_prlimit64, Answer { rules: vec![pair(is_core()?, sets()?)?], errno: 0 }),
            (libc::SYS_setrlimit, Answer { rules: vec![rule(0, Len::Dword, Op::Eq, core)?], errno: 0 }),
        ]))
    };
    allow_list(rules, own().map_err(wrong)?, arch).map(Filter).map_err(wrong)
}

/// The answer to a call, or to a call with certain arguments, that is not made.
struct Answer {
    /// The arguments to which this applies; empty means all.
    rules: Vec<SeccompRule>,
    /// The error number; 0 pretends that the call succeeded.
    errno: i32,
}

/// The number of instructions that seccompiler puts before its comparisons: three that check the architecture, and
/// one that loads the call's number.
const PRELUDE: usize = 4;

/// Compiles the allow-list as a binary search over ranges of call numbers, with seccompiler's own comparisons for
/// calls that depend on their arguments. When a filter is loaded, the kernel translates all of it and runs it for
/// every call number: a linear list of 300 took 0.8 ms of a cell's start.
///
/// Calls in `own` get the answer that it gives. Of the rest, [`refused`] calls and disallowed arguments of allowed
/// calls get EPERM; all others get ENOSYS.
fn allow_list(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mut own: BTreeMap<i64, Answer>,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let error = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let answer = |action: SeccompAction| {
        vec![sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: u32::from(action) }]
    };
    let mut prelude = vec![];
    let mut bodies: BTreeMap<i64, BpfProgram> =
        refused().into_iter().map(|number| (number, answer(error(libc::EPERM)))).collect();
    for (number, conditions) in rules {
        let (conditions, yes, no) = match own.remove(&number) {
            Some(Answer { rules, errno }) => (rules, error(errno), SeccompAction::Allow),
            None => (conditions, SeccompAction::Allow, error(libc::EPERM)),
        };
        let body = if conditions.is_empty() {
            answer(yes)
        } else {
            let one = BTreeMap::from([(number, conditions)]);
            let program: BpfProgram = SeccompFilter::new(one, no, yes, arch)?.try_into()?;
            prelude = program[..PRELUDE].to_vec();
            program[PRELUDE..].to_vec()
        };
        bodies.insert(number, body);
    }
    // Each range reaches from its first number up to the next range's.
    let mut ranges: Vec<(i64, BpfProgram)> = vec![];
    let mut next = 0;
    let mut start = |at: i64, body: BpfProgram| match ranges.last() {
        Some((_, known)) if known.len() == 1 && body.len() == 1 && known[0].k == body[0].k => {}
        _ => ranges.push((at, body)),
    };
    for (number, body) in bodies {
        if number != next {
            start(next, answer(error(libc::ENOSYS)));
        }
        start(number, body);
        next = number + 1;
    }
    start(next, answer(error(libc::ENOSYS)));
    // Numbers of the x32 ABI and above: no agent has a reason to use them.
    start(FOREIGN, answer(error(libc::EPERM)));
    prelude.extend(search(&ranges));
    Ok(prelude)
}

/// The first call number of another ABI (x32).
const FOREIGN: i64 = 0x4000_0000;

/// Emits a binary search that jumps to the range with the loaded number.
fn search(ranges: &[(i64, BpfProgram)]) -> BpfProgram {
    match ranges {
        [] => vec![],
        [(_, body)] => body.clone(),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let below = search(lower);
            let jump = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
            let mut program = vec![
                // If not below the upper half, jump over the lower half, which may be long.
                jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, upper[0].0 as u32),
                jump(libc::BPF_JMP | libc::BPF_JA, 0, 0, below.len() as u32),
            ];
            program.extend(below);
            program.extend(search(upper));
            program
        }
    }
}

/// Applies the filter permanently to this process and everything that it starts.
pub fn apply(filter: &Filter) -> Result<(), StepError> {
    seccompiler::apply_filter(&filter.0).map_err(|e| StepError {
        step: "applying the system call filter".to_owned(),
        source: io::Error::other(e.to_string()),
    })
}

/// Calls that debuggers use to inspect processes.
const TRACING: [i64; 3] = [libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

/// Calls that are refused on purpose.
fn refused() -> Vec<i64> {
    #[allow(clippy::wildcard_imports, reason = "the list is read as a list")]
    use libc::*;
    #[allow(unused_mut, reason = "some architectures have no old calls to add")]
    let mut list = vec![
        SYS_acct,
        SYS_add_key,
        SYS_adjtimex,
        SYS_bpf,
        SYS_chroot,
        SYS_clock_adjtime,
        SYS_clock_settime,
        SYS_clone,
        SYS_delete_module,
        SYS_fanotify_init,
        SYS_fanotify_mark,
        SYS_finit_module,
        SYS_fsconfig,
        SYS_fsmount,
        SYS_fsopen,
        SYS_fspick,
        SYS_init_module,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_io_uring_setup,
        SYS_kcmp,
        SYS_kexec_load,
        SYS_keyctl,
        SYS_mknodat,
        SYS_mount,
        SYS_mount_setattr,
        SYS_move_mount,
        SYS_name_to_handle_at,
        SYS_nfsservctl,
        SYS_open_by_handle_at,
        SYS_open_tree,
        SYS_perf_event_open,
        SYS_personality,
        SYS_pidfd_getfd,
        SYS_pivot_root,
        SYS_process_madvise,
        SYS_process_mrelease,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_ptrace,
        SYS_quotactl,
        SYS_quotactl_fd,
        SYS_reboot,
        SYS_request_key,
        SYS_sched_setaffinity,
        SYS_setdomainname,
        SYS_sethostname,
        SYS_setns,
        SYS_settimeofday,
        SYS_socket,
        SYS_socketpair,
        SYS_swapoff,
        SYS_swapon,
        SYS_syslog,
        SYS_umount2,
        SYS_unshare,
        SYS_userfaultfd,
        SYS_vhangup,
    ];
    #[cfg(target_arch = "x86_64")]
    list.extend([
        SYS_afs_syscall,
        SYS__sysctl,
        SYS_getpmsg,
        SYS_ioperm,
        SYS_iopl,
        SYS_kexec_file_load,
        SYS_lookup_dcookie,
        SYS_modify_ldt,
        SYS_putpmsg,
        SYS_security,
        SYS_sysfs,
        SYS_tuxcall,
        SYS_uselib,
        SYS_ustat,
        SYS_vserver,
    ]);
    list
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

    /// Interprets a filter as the kernel would, for the instructions that seccompiler emits.
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

    fn error(errno: i32) -> u32 {
        u32::from(SeccompAction::Errno(errno as u32))
    }

    #[test]
    fn the_search_answers_for_every_number_what_the_plain_list_answers() {
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let masked = || vec![rule(0, Len::Qword, Op::MaskedEq(CLONE_NEW), 0).unwrap()];
        let one_of = || vec![rule(0, Len::Dword, Op::Eq, 1).unwrap(), rule(0, Len::Dword, Op::Eq, 2).unwrap()];
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = allowed().into_iter().map(|n| (n, vec![])).collect();
        rules.extend([(libc::SYS_clone, masked()), (libc::SYS_socket, one_of())]);
        let (eperm, enosys) = (error(libc::EPERM), error(libc::ENOSYS));
        let allow = u32::from(SeccompAction::Allow);
        let plain: BpfProgram =
            SeccompFilter::new(rules.clone(), SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch)
                .unwrap()
                .try_into()
                .unwrap();
        let searched = allow_list(rules.clone(), BTreeMap::new(), arch).unwrap();
        // The last one is a number of the x32 ABI, which no filter may allow.
        for number in (0..1000).chain([u32::MAX, 0x4000_0000 + libc::SYS_write as u32]) {
            for first in [0, 1, 2, 3, CLONE_NEW, u64::MAX] {
                let arguments = [first, 0, 0, 0, 0, 0];
                let (wanted, found) = (run(&plain, number, arguments), run(&searched, number, arguments));
                let known = refused().contains(&i64::from(number)) || rules.contains_key(&i64::from(number));
                let wanted = if wanted == allow || known || number >= 0x4000_0000 { wanted } else { enosys };
                assert_eq!(wanted, found, "{number}, {first:#x}");
            }
        }
        let (Filter(real), core) = (compile(Sockets::All, true, false).unwrap(), u64::from(libc::RLIMIT_CORE));
        for (number, arguments, answer) in [
            (libc::SYS_clone3, [0; 6], enosys),
            (libc::SYS_prlimit64, [0, core, 7, 0, 0, 0], error(0)),
            (libc::SYS_prlimit64, [0, core, 0, 7, 0, 0], allow),
            (libc::SYS_prlimit64, [0, core + 1, 7, 0, 0, 0], allow),
            (libc::SYS_setrlimit, [core, 7, 0, 0, 0, 0], error(0)),
            (libc::SYS_setrlimit, [core + 1, 7, 0, 0, 0, 0], allow),
            // fchmodat2, cachestat, mseal, and one that does not exist yet: libraries fall back.
            (452, [0; 6], enosys),
            (451, [0; 6], enosys),
            (462, [0; 6], enosys),
            (900, [0; 6], enosys),
            // Known, and refused on purpose.
            (libc::SYS_mount, [0; 6], eperm),
            (libc::SYS_ptrace, [0; 6], eperm),
            (libc::SYS_io_uring_setup, [0; 6], eperm),
            (libc::SYS_sched_setaffinity, [0; 6], eperm),
            (libc::SYS_clone, [CLONE_NEW, 0, 0, 0, 0, 0], eperm),
        ] {
            assert_eq!(run(&real, number as u32, arguments), answer, "{number} {arguments:?}");
        }
        let Filter(tracing) = compile(Sockets::All, true, true).unwrap();
        for number in 0..1000 {
            let wanted = if TRACING.contains(&i64::from(number)) { allow } else { run(&real, number, [0; 6]) };
            assert_eq!(run(&tracing, number, [0; 6]), wanted, "{number}");
        }
        // Pairs that stay connected, where a path would lead to the host's services.
        let pair = |kind: i32| [libc::AF_UNIX as u64, (kind | libc::SOCK_CLOEXEC) as u64, 0, 0, 0, 0];
        for sockets in [Sockets::None, Sockets::Internet, Sockets::All] {
            let Filter(program) = compile(sockets, false, false).unwrap();
            let answer = |kind| run(&program, libc::SYS_socketpair as u32, pair(kind));
            assert_eq!((answer(libc::SOCK_STREAM), answer(libc::SOCK_SEQPACKET)), (allow, allow), "{sockets:?}");
            assert_eq!(answer(libc::SOCK_DGRAM), if sockets == Sockets::All { allow } else { eperm }, "{sockets:?}");
        }
        assert_ne!(run(&searched, libc::SYS_write as u32, [0; 6]), run(&searched, libc::SYS_mount as u32, [0; 6]));
    }
}
