//! Looking for the node that leads: asking, following hints, waiting.
//!
//! `devices` calls it for whatever a partition's leader must do. A hint is followed at once, but each
//! node is asked once between two waits: nodes that take each other for the leader are asked again
//! after a pause, not in a loop. Not here: who is asked first, and how.

use std::time::Duration;

use fleetline_gateway::hub::HubError;
use fleetline_types::NodeId;
use tokio::time::Instant;

/// How long a leader is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest and the longest wait between attempts.
const WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Tries nodes until one leads `what` and answers. `known` says whom to ask first. `once` is what may
/// be asked only once when the outcome of asking is unknown.
pub(crate) async fn seek<T, F>(
    what: &str,
    once: bool,
    known: impl Fn() -> Option<NodeId>,
    mut ask: impl FnMut(NodeId) -> F,
) -> Result<T, HubError>
where
    F: Future<Output = Result<T, HubError>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut next = known();
    // Since the last wait; never more than there are nodes.
    let mut asked = Vec::new();
    let mut wait = WAIT.0;
    loop {
        let last = match next.take() {
            None => HubError::Unavailable(what.to_owned()),
            Some(node) => {
                asked.push(node);
                match ask(node).await {
                    Ok(answer) => return Ok(answer),
                    Err(HubError::NotLeader { leader, what }) => {
                        next = leader.filter(|leader| !asked.contains(leader));
                        HubError::NotLeader { leader, what }
                    }
                    Err(error @ (HubError::Unavailable(_) | HubError::Busy { .. })) => error,
                    Err(error @ HubError::Unknown(_)) if !once => error,
                    Err(error) => return Err(error),
                }
            }
        };
        if Instant::now() + wait >= deadline {
            return Err(last);
        }
        if next.is_none() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT.1);
            asked.clear();
            next = known();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn hint(leader: u64) -> HubError {
        HubError::NotLeader { what: "it".to_owned(), leader: Some(NodeId(leader)) }
    }

    /// Hints to nodes that weren't asked yet cost no time.
    #[tokio::test(start_paused = true)]
    async fn hints_are_followed_at_once() {
        let started = Instant::now();
        let found = seek(
            "it",
            true,
            || Some(NodeId(1)),
            async |node: NodeId| match node.0 {
                3 => Ok(node),
                other => Err(hint(other + 1)),
            },
        );
        assert_eq!((found.await, started.elapsed()), (Ok(NodeId(3)), Duration::ZERO));
    }

    /// Two nodes that take each other for the leader: both are asked once a wait.
    #[tokio::test(start_paused = true)]
    async fn a_circle_of_hints_is_not_a_busy_loop() {
        let asked = RefCell::new(Vec::new());
        let started = Instant::now();
        let found: Result<(), _> = seek(
            "it",
            true,
            || Some(NodeId(1)),
            async |node: NodeId| {
                asked.borrow_mut().push((started.elapsed(), node.0));
                assert!(asked.borrow().len() < 1000, "asks without a pause");
                Err(hint(3 - node.0))
            },
        )
        .await;
        assert!(matches!(found, Err(HubError::NotLeader { .. })), "{found:?}");
        let asked = asked.into_inner();
        let first: Vec<_> = asked.iter().take(4).map(|(at, node)| (at.as_millis(), *node)).collect();
        assert_eq!(first, [(0, 1), (0, 2), (10, 1), (10, 2)]);
        assert!(asked.last().unwrap().0 < PATIENCE, "{asked:?}");
    }

    /// What may be done already isn't asked for again; a question is.
    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome() {
        for (once, expected) in [(true, 1), (false, 2)] {
            let count = Cell::new(0);
            let found = seek(
                "it",
                once,
                || Some(NodeId(1)),
                async |_| {
                    count.set(count.get() + 1);
                    if count.get() == 1 { Err(HubError::Unknown("cut".to_owned())) } else { Ok(()) }
                },
            );
            assert_eq!((found.await.is_err(), count.get()), (once, expected));
        }
    }
}
