//! The bodies of the fuzz targets (`fuzz/`), with valid inputs that are changed at random.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../../../fuzz/bodies/event.rs"]
mod event;
#[path = "../../../fuzz/bodies/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/bodies/spec.rs"]
mod spec;
#[path = "../../../fuzz/bodies/table.rs"]
mod table;

const EVENTS: &str = r#"{"event":"started","parameters":353473,"resumed_from_samples":0,"device":"cpu (1 thread)"}
{"event":"step","step":10,"samples_seen":640,"loss":4.25,"metrics":{"lr":0.0005,"logit_scale":14.28}}
{"event":"checkpoint","step":64,"samples_seen":8192,"path":".sweep/jobs/2c/checkpoints/8192","sha256":"2c26b46b"}
{"event":"eval","samples_seen":8192,"dataset":"icons","measurements":[{"metric":"acc1","value":0.5,"standard_error":0.01,"chance":0.001,"count":1000}]}
{"event":"step","step":20,"samples_seen":1280,"loss":NaN,"metrics":{}}
{"event":"finished","samples_seen":8192,"train_secs":12.5,"eval_secs":0.5,"peak_memory_bytes":123456789}
{"event":"failed","kind":"diverged","reason":"the loss is no number"}
"#;

const TABLES: [&str; 6] = [
    "n,loss,acc,group\n1e6,2.5,0.5,a\n1e6,2.5,0.5,a\n1e6,2.25,0.5,b\n,3,,\n",
    "run;d;loss\nr;1e6;2,5\nr;2e6;2,25\ns;1;3\nr;1e6;2.75\n",
    "\u{feff}\"a \"\"b\"\"\",\"x\ny\"\r\n1,\"2\n3\"\r\n# comment\r\n,\r\n",
    "model,pretrained,dataset,task,acc1,lp_acc1,fewshot_k\nm,t,a,x,0.5,0.7,10\nm,t,a,y,0.5,,\nm,,b,x,nan,,-1\n",
    "run\td\tloss\nr\t1.2\t3\nr\t1.4\t4\n",
    "a\n1\n\n\n2\n",
];

/// Specs that are here: the template and those of the experiments.
fn specs() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let experiments = fs::read_dir(root.join("../experiments")).expect("they are beside this crate");
    let mut paths: Vec<_> = experiments.map(|entry| entry.expect("it is readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.push(root.join("src/spec/template.yaml"));
    paths.sort();
    assert!(paths.len() > 1, "{paths:?}");
    paths.iter().map(|path| fs::read(path).expect("it is readable")).collect()
}

proptest! {
    #[test]
    fn events(bytes in mutate::mutated(vec![EVENTS.as_bytes().to_vec()])) {
        event::check(&bytes);
    }

    #[test]
    fn tables(bytes in mutate::mutated(TABLES.iter().map(|text| text.as_bytes().to_vec()).collect())) {
        table::check(&bytes);
    }

    #[test]
    fn specs_of_ours_with_mistakes(bytes in mutate::mutated(specs())) {
        spec::check(&bytes);
    }
}

#[test]
fn what_is_changed_is_valid_before() {
    for line in EVENTS.lines().filter(|line| !line.contains("NaN")) {
        assert!(serde_json::from_str::<protocol::Event>(line).is_ok(), "{line}");
    }
    for text in specs() {
        let text = String::from_utf8(text).expect("text");
        sweep::spec::parse(&sweep::spec::Source::new("s.yaml", &text)).expect("ours are right");
    }
}
