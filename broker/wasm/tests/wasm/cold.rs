//! Many instances in a row: each is fresh, and nothing of them stays.

use fleetline_worker::Outcome;

use crate::app::{App, event};
use crate::guest::{NOTHING, component};

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A thousand instances that touch 4 MiB each, thus 4 GB together. The second half may not need more
/// memory than the first, up to what other tests of this process take meanwhile.
#[tokio::test]
async fn a_thousand_instances_leave_nothing() {
    const MORE_MAX: usize = 512 << 20;
    // Traps when a byte that a former instance wrote is there.
    let body = format!(
        "(drop (memory.grow (i32.const 64)))
         (if (i32.load8_u (i32.const 131072)) (then (unreachable)))
         (memory.fill (i32.const 131072) (i32.const 1) (i32.const 4194304))
         {NOTHING}"
    );
    let app = App::start("eventHubTrigger", &component(&[], &body)).await;
    let mut half = 0;
    for run in 0..1000 {
        assert_eq!(app.invoke(event("x")).await.unwrap().outcome, Outcome::Success);
        if run == 500 {
            half = resident();
        }
    }
    let more = resident().saturating_sub(half);
    assert!(more < MORE_MAX, "{more} bytes more after 500 instances of 4 MiB");
}
