//! What the scheduler decides, case by case.

use super::{Action, AttemptPhase, AttemptView, Input, JobPhase, JobView, Policy, Scheduler};
use crate::backend::{EndCause, Observed};
use crate::store::History;

/// One pending job, nothing behind it.
fn job() -> JobView {
    JobView { job_id: 1, phase: JobPhase::Pending, history: History::default(), orphaned: None, live: None }
}

/// A job with a past.
fn after(history: History) -> JobView {
    JobView { history, ..job() }
}

fn decide(now: f64, job: JobView) -> Vec<Action> {
    Scheduler::new(Policy::new(2, 2)).step(now, &Input { jobs: vec![job], free_slots: 2, stop: false })
}

#[test]
fn crashes_are_retried_with_backoff_up_to_the_limit() {
    let crashed = |crashes| {
        after(History {
            crashes,
            last_end_secs: Some(100.0),
            last_reason: Some("boom".to_owned()),
            ..History::default()
        })
    };
    assert_eq!(decide(100.4, crashed(1)), []);
    assert_eq!(decide(100.5, crashed(1)), [Action::Start { job_id: 1 }]);
    assert_eq!(decide(100.9, crashed(2)), []);
    assert_eq!(decide(101.0, crashed(2)), [Action::Start { job_id: 1 }]);
    let reason = "boom (3 attempts failed, 2 retries allowed)".to_owned();
    assert_eq!(decide(200.0, crashed(3)), [Action::FailJob { job_id: 1, reason }]);
}

#[test]
fn losses_are_free_up_to_a_cap() {
    let lost = |lost| after(History { lost, last_end_secs: Some(100.0), ..History::default() });
    assert_eq!(decide(100.0, lost(1)), [Action::Start { job_id: 1 }]);
    assert_eq!(decide(500.0, lost(19)), [Action::Start { job_id: 1 }]);
    assert!(matches!(decide(500.0, lost(20))[..], [Action::FailJob { .. }]));
}

#[test]
fn every_cause_has_a_budget_of_its_own() {
    let job = |change: &dyn Fn(&mut History)| {
        let mut history = History::default();
        change(&mut history);
        decide(500.0, after(history))
    };
    // None adds to another's.
    let below = |past: &mut History| {
        (past.lost, past.node_failures, past.out_of_memory) = (19, 19, 2);
        (past.preempted, past.stalled, past.crashes) = (99, 2, 2);
    };
    assert_eq!(job(&below), [Action::Start { job_id: 1 }]);
    let reason = |change: &dyn Fn(&mut History)| match &job(change)[..] {
        [Action::FailJob { reason, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&|past| past.node_failures = 20), "20 attempts were lost with their nodes");
    assert_eq!(
        reason(&|past| past.out_of_memory = 3),
        "3 attempts ran out of the memory that was asked for; ask for more"
    );
    assert_eq!(reason(&|past| past.preempted = 100), "100 attempts were preempted and got no further");
    assert_eq!(
        reason(&|past| past.stalled = 3),
        "3 attempts stopped by themselves or at the time limit and got no further"
    );
}

fn live(phase: AttemptPhase, observed: Observed) -> JobView {
    JobView {
        phase: JobPhase::Running,
        live: Some(AttemptView {
            token: "t".to_owned(),
            worker: "t".to_owned(),
            phase,
            host: "far".to_owned(),
            created_secs: 0.0,
            seen_secs: 1000.0,
            own: false,
            stop_requested: false,
            observed,
        }),
        ..job()
    }
}

#[test]
fn an_attempt_is_lost_only_if_its_heartbeat_has_stopped_and_nobody_sees_it() {
    let lost = |observed: Observed, now: f64| {
        let actions = decide(now, live(AttemptPhase::Running, observed));
        match &actions[..] {
            [] => None,
            [Action::MarkLost { reason, .. }] => Some(reason.clone()),
            other => panic!("{other:?}"),
        }
    };
    let alive = Observed::Alive("1:1".to_owned());
    assert_eq!(lost(alive.clone(), 1e9), None, "alive, whatever the clock says");
    assert_eq!(lost(Observed::Gone, 1009.0), None, "a fresh heartbeat outweighs a denial");
    assert!(lost(Observed::Gone, 1010.0).is_some());
    assert_eq!(lost(Observed::Unknown, 1299.0), None);
    assert_eq!(lost(Observed::Unknown, 1300.0).as_deref(), Some("its host far has been silent for 5 min"));
    assert!(lost(Observed::Exited, 1000.0).is_some(), "its parent has waited for it");
    // A clock that was set back makes nobody silent.
    assert_eq!(lost(Observed::Gone, 10.0), None);
    assert_eq!(lost(Observed::Unknown, 10.0), None);
    // An intent of a host that is gone is not lost but withdrawn: it cost nothing.
    let intent = decide(1300.0, live(AttemptPhase::Intent, Observed::Unknown));
    assert_eq!(intent, [Action::Withdraw { token: "t".to_owned() }]);
}

#[test]
fn a_queue_that_gives_no_answer_ends_nothing() {
    for phase in [AttemptPhase::Intent, AttemptPhase::Launched, AttemptPhase::Running] {
        assert_eq!(decide(1e9, live(phase, Observed::NoAnswer)), [], "{phase:?}");
    }
}

#[test]
fn what_a_queue_says_of_an_end_is_the_reason() {
    let ended = |cause| Observed::Ended { said: "Slurm job 7_0 ended as X".to_owned(), cause, node: None };
    let (token, reason) = ("t".to_owned(), "Slurm job 7_0 ended as X".to_owned());
    for phase in [AttemptPhase::Launched, AttemptPhase::Running] {
        let cause = EndCause::NodeFailed;
        assert_eq!(decide(1009.0, live(phase, ended(cause))), [], "the worker may be storing its end");
        let lost = Action::MarkLost { token: token.clone(), reason: reason.clone(), cause, node: None };
        assert_eq!(decide(1010.0, live(phase, ended(cause))), [lost]);
        let cancelled = Action::CancelJob { job_id: 1, token: token.clone(), reason: reason.clone() };
        assert_eq!(
            decide(1010.0, live(phase, ended(EndCause::Cancelled))),
            [cancelled],
            "somebody's will is respected"
        );
    }
    // Taken out of the queue because we asked for it: it never ran, and cost nothing.
    let mut asked = live(AttemptPhase::Launched, ended(EndCause::Cancelled));
    asked.live.as_mut().expect("it lives").stop_requested = true;
    assert_eq!(decide(1000.0, asked), [Action::Withdraw { token }]);
}

#[test]
fn a_stop_waits_for_what_may_be_running() {
    let scheduler = Scheduler::new(Policy::new(2, 2));
    let waits = |observed, now| {
        let job = live(AttemptPhase::Running, observed);
        scheduler.may_be_running(now, job.live.as_ref().expect("it lives"))
    };
    assert!(waits(Observed::Alive("1:1".to_owned()), 1e9));
    assert!(waits(Observed::Unknown, 1001.0) && !waits(Observed::Unknown, 1010.0));
    assert!(!waits(Observed::Exited, 1000.0));
}

#[test]
fn a_clock_set_back_holds_no_job_up_and_a_full_disk_is_waited_for() {
    let ended =
        |crashes, no_space| after(History { crashes, no_space, last_end_secs: Some(1000.0), ..History::default() });
    assert_eq!(decide(10.0, ended(2, 0)), [Action::Start { job_id: 1 }]);
    assert_eq!(decide(1059.0, ended(0, 6)), []);
    assert_eq!(decide(1060.0, ended(0, 6)), [Action::Start { job_id: 1 }]);
}

#[test]
fn a_stop_starts_nothing_and_asks_once() {
    let scheduler = Scheduler::new(Policy::new(2, 2));
    let mut running = live(AttemptPhase::Running, Observed::Alive("1:1".to_owned()));
    let waiting = JobView { job_id: 2, ..job() };
    let stop = |jobs| scheduler.step(0.0, &Input { jobs, free_slots: 1, stop: true });
    assert_eq!(stop(vec![running.clone(), waiting.clone()]), [Action::StopAttempt { token: "t".to_owned() }]);
    running.live.as_mut().expect("it lives").stop_requested = true;
    assert_eq!(stop(vec![running, waiting]), []);
}

#[test]
fn a_job_whose_parent_has_failed_is_given_up_even_with_no_room() {
    let orphan = JobView { orphaned: Some("job abc has failed".to_owned()), ..job() };
    let stopping = Input { jobs: vec![orphan], free_slots: 0, stop: true };
    let reason = "job abc has failed".to_owned();
    assert_eq!(Scheduler::new(Policy::new(2, 2)).step(0.0, &stopping), [Action::FailJob { job_id: 1, reason }]);
}
