//! What can't work is refused at once, with exit code 2 and a sentence that says the way out.

use protocol::{DataUsed, Event, FailureKind, Job, Ranks, exit};

use crate::harness::{Bench, append, events, run, start_file};

fn refused(change: impl FnOnce(&mut Job)) -> String {
    let bench = Bench::new();
    let mut job = bench.job("refused");
    change(&mut job);
    let (events, code) = run(&job);
    assert_eq!(code, exit::BAD_INPUT, "{events:?}");
    match &events[..] {
        [Event::Failed { reason, kind: FailureKind::BadInput }] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

fn assert_says(reason: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
}

#[test]
fn jobs_that_cannot_work() {
    assert_says(&refused(|job| job.protocol = 99), &["protocol 99", "this runner 1"]);
    assert_says(&refused(|job| job.spec.runner.version = "0.0.0".into()), &["clip 0.0.0", "plan it again"]);
    assert_says(
        &refused(|job| job.spec.samples_seen = 33),
        &["`samples_seen` is 33", "multiple of the global batch, 32"],
    );
    assert_says(
        &refused(|job| job.spec.model.config.text_cfg.vocab_size = 100),
        &["`text_cfg.vocab_size` is 100", "514 to 49408"],
    );
    assert_says(
        &refused(|job| job.spec.recipe.accum_freq = 3),
        &["`recipe.accum_freq` is 3", "must divide the global batch, 32"],
    );
    let ranks = Ranks { world_size: 33, master_addr: "localhost".into(), master_port: 29_500 };
    assert_says(&refused(|job| job.ranks = Some(ranks)), &["`ranks.world_size` is 33", "1 to the global batch, 32"]);
    assert_says(
        &refused(|job| job.spec.recipe.on_spike = protocol::OnSpike::Rollback),
        &["`recipe.on_spike` is rollback", "needs `checkpoint_every_samples`"],
    );
    let extra = |job: &mut Job| {
        job.spec.recipe.extra.insert("momentum".into(), 0.5);
    };
    assert_says(&refused(extra), &["momentum", "no extra settings"]);
}

#[test]
fn devices_and_pools_that_are_not_there() {
    assert_says(&refused(|job| job.resources.device = "tpu".into()), &["`tpu`", "`cuda:N`"]);
    assert_says(&refused(|job| job.spec.data.path = "nowhere".into()), &["nowhere"]);
    assert_says(&refused(|job| job.spec.data_size = 65), &["65", "64 good pairs"]);
    assert_says(&refused(|job| job.spec.data.digest = "0".repeat(64)), &["has changed", "plan again"]);
    // In place, one letter of a caption.
    let recaptioned = |job: &mut Job| {
        let shard = job.base_dir.join("pool/00000.tar");
        let mut bytes = std::fs::read(&shard).expect("the shard");
        let at = bytes.windows(5).position(|window| window == b"a red").expect("a caption");
        bytes[at + 2] = b'b';
        std::fs::write(&shard, bytes).expect("the shard");
    };
    assert_says(&refused(recaptioned), &["`squares` has changed", "(in 00000.tar)", "plan again"]);
    let renamed = |job: &mut Job| {
        let names = job.base_dir.join("pool/classnames.txt");
        let text = std::fs::read_to_string(&names).expect("class names");
        std::fs::write(&names, text.replace("red", "bed")).expect("class names");
    };
    assert_says(&refused(renamed), &["`squares` has changed", "plan again"]);
    let template = |job: &mut Job| job.spec.evaluations[0].templates = vec!["a photo".into()];
    assert_says(&refused(template), &["`a photo`", "class name"]);
}

#[test]
fn files_that_are_no_jobs() {
    let bench = Bench::new();
    let path = bench.dir.path().join("job.json");
    let said = |path: &std::path::Path| {
        let (events, code) = events(&start_file(path).wait_with_output().expect("ends"));
        assert_eq!(code, exit::BAD_INPUT);
        format!("{events:?}")
    };
    assert_says(&said(&path), &["cannot read the job", "No such file"]);
    std::fs::write(&path, "{\"protocol\": 1}").expect("job file");
    assert_says(&said(&path), &["is not a job", "job_key"]);
}

#[test]
fn a_pool_that_lacks_more_than_the_job_allows() {
    let bench = Bench::new();
    let pool = bench.dir.path().join("pool");
    let mut tar = tar::Builder::new(std::fs::File::create(pool.join("00001.tar")).expect("shard"));
    append(&mut tar, "bad.png", b"\x89PNG\r\n\x1a\nand no more");
    append(&mut tar, "bad.txt", b"a picture that is not all there");
    tar.finish().expect("shard");
    std::fs::write(pool.join("sizes.json"), r#"{"00000.tar": 64, "00001.tar": 1}"#).expect("sizes");
    let mut job = bench.job("lacking");
    job.spec.data_size = 65;
    let (said, code) = run(&job);
    let [Event::Failed { reason, kind: FailureKind::BadInput }] = &said[..] else { panic!("{said:?}") };
    assert_eq!(code, exit::BAD_INPUT);
    assert_says(reason, &["64 pairs can be used, 65 were planned", "undecodable image: 1", "limits.skipped"]);

    // Training has all that it asks for; its evaluation would be over fewer candidates than planned.
    job.spec.data_size = 64;
    let (said, _) = run(&job);
    let [Event::Failed { reason, kind: FailureKind::BadInput }] = &said[..] else { panic!("{said:?}") };
    assert_says(reason, &["64 pairs can be used, 65 were planned", "at most 0 may be missing"]);

    job.spec.data_size = 65;
    job.spec.skipped_max = Some(1);
    let (said, code) = run(&job);
    assert_eq!(code, exit::FINISHED, "{said:?}");
    let skipped = [("undecodable image".to_owned(), 1)].into();
    let trained_on = Some(DataUsed { pairs: 64, skipped });
    assert!(matches!(&said[0], Event::Started { data, .. } if *data == trained_on), "{:?}", said[0]);
}
