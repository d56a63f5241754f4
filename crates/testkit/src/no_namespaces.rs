//! A host that does not let anybody make user namespaces.
#![allow(unsafe_code, reason = "system calls between fork and exec, where no wrapper may allocate")]

use std::io;

/// A system call's answer.
pub fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has this process, and all that it starts, refused `clone` and `unshare` with
/// `CLONE_NEWUSER`. As root without `no_new_privs`, so that a setuid program
/// stays one. System calls alone: it can be called between fork and exec.
pub fn refuse_user_namespaces() -> io::Result<()> {
    let line = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = |value: u32| line(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let refuse = |errno: i32| answer(libc::SECCOMP_RET_ERRNO | errno as u32);
    let mut program = [
        line(load, 0, 0, 0),
        line(equal, 0, 1, libc::SYS_clone3 as u32),
        refuse(libc::ENOSYS),
        line(equal, 1, 0, libc::SYS_clone as u32),
        line(equal, 0, 3, libc::SYS_unshare as u32),
        line(load, 0, 0, 16),
        line(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, libc::CLONE_NEWUSER as u32),
        refuse(libc::EPERM),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    if !rustix::process::geteuid().is_root() {
        // SAFETY: integers alone.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    }
    // SAFETY: the program lives through the call.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) })
}
