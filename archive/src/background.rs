//! Lets work that nobody waits for at the tail step back.

/// Gives the calling thread less of a busy processor from now on; `nice` as in nice(1), 1 to 19. On an idle processor it changes nothing.
pub fn step_back(nice: i32) {
    // On Linux "this process" is the calling thread: setpriority(2), notes.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
