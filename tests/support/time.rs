//! What a machine with other work may be late for.

/// Tries up to three times. What must hold however late it is, `attempt` asserts; what was late, it returns.
pub(crate) fn in_time(mut attempt: impl FnMut() -> Result<(), String>) {
    let mut late = Vec::new();
    while let Err(why) = attempt() {
        eprintln!("late: {why}");
        late.push(why);
        assert!(late.len() < 3, "late each time: {late:#?}");
    }
}

/// An error of [`in_time`] where `is_in_time` is false.
pub(crate) fn unless(is_in_time: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_in_time { Ok(()) } else { Err(why()) }
}
