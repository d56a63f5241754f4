//! The system calls that an agent may make: an allow-list, started from what
//! well-known container engines allow, then reduced.
//!
//! What is missing on purpose: new namespaces and mounts, tracing and reading
//! of other processes, keyrings, bpf, perf, userfaultfd, io_uring, modules,
//! kexec, clocks, quotas, swap, handles to files by number, raw and exotic
//! sockets, pushing characters into a terminal.

use super::steps::StepError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// A compiled filter: two programs, because one can answer with one error only.
#[derive(Clone)]
pub struct Filter {
    allow: BpfProgram,
    unknown: BpfProgram,
}

/// Namespaces that an agent may not make with `clone`.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64
    | 0x80; // CLONE_NEWTIME

fn rule(argument: u8, length: Len, op: Op, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![Condition::new(argument, length, op, value)?])
}

/// Compiles the filter for this machine's architecture. Without `sockets` an
/// agent can make none but pairs of its own: that is what "no network" means
/// where there is no network namespace.
pub fn compile(sockets: bool) -> Result<Filter, StepError> {
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
    if !sockets {
        rules.remove(&libc::SYS_socket);
    }
    let allow = SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch)
        .and_then(TryInto::try_into)
        .map_err(wrong)?;
    // clone3 has its flags behind a pointer that no filter can read: with
    // ENOSYS programs fall back to clone.
    let unknown = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, vec![])]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(wrong)?;
    Ok(Filter { allow, unknown })
}

/// Applies the filter to this process and all that it starts, for good.
pub fn apply(filter: &Filter) -> Result<(), StepError> {
    for program in [&filter.allow, &filter.unknown] {
        seccompiler::apply_filter(program).map_err(|e| StepError {
            step: "applying the system call filter".to_owned(),
            source: io::Error::other(e.to_string()),
        })?;
    }
    Ok(())
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
