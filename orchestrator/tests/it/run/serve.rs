//! The live page over real sweeps: every view and its files, who is let in, what comes while a sweep runs, and a real
//! browser where there is one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bench::{Bench, Launch, SPEC};
use crate::browser::Browser;
use crate::harness::transcript;

/// A `sweep serve` that runs; killed when it is dropped.
struct Served {
    child: Option<Child>,
    port: u16,
    url: String,
}

/// What it answered.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Served {
    fn start(bench: &Bench, arguments: &[&str]) -> Served {
        let mut command = bench.command(&[&["serve", "--port", "0", "--json"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sweep starts");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut json = String::new();
        for line in said.lines() {
            let line = line.expect("text");
            json += &line;
            if line == "}" {
                break;
            }
        }
        let served: serde_json::Value = serde_json::from_str(&json).expect("the address as JSON");
        let address = served["address"].as_str().expect("an address");
        let port = address.rsplit_once(':').expect("a port").1.parse().expect("a number");
        Served { child: Some(child), port, url: served["url"].as_str().expect("a URL").to_owned() }
    }

    /// Of a sweep whose launch, with a fault of its runners, has got as far as a checkpoint.
    fn beside_a_launch(fault: &str) -> (Bench, Launch, Served) {
        let bench = Bench::new(SPEC);
        let launch = bench.launch(fault);
        bench.wait_for_checkpoint();
        let served = Served::start(&bench, &[]);
        (bench, launch, served)
    }

    fn connect(&self, path: &str, headers: &[(&str, &str)]) -> BufReader<TcpStream> {
        self.connect_by("GET", path, headers)
    }

    fn connect_by(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_mins(2))).expect("a socket");
        let own = format!("localhost:{}", self.port);
        let host = ("Host", &*own);
        let given = headers.iter().any(|(name, _)| *name == "Host");
        let lines: Vec<String> = headers
            .iter()
            .chain((!given).then_some(&host))
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{}", lines.concat());
        stream.write_all(format!("{request}\r\n").as_bytes()).expect("it reads");
        BufReader::new(stream)
    }

    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        Served::answer(self.connect(path, headers))
    }

    fn answer(mut stream: BufReader<TcpStream>) -> Answer {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), body: bytes[end + 4..].to_vec() }
    }

    /// A page that is there.
    fn page(&self, path: &str) -> String {
        let answer = self.ask(path, &[]);
        assert_eq!(answer.status, 200, "{path}\n{}", answer.text());
        answer.text()
    }

    /// Ends it as Ctrl-C does; it has to end well.
    fn end(mut self, signal: Signal) {
        let mut child = self.child.take().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it is ours");
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `href="..."` of a page, unescaped, those that begin so.
fn links(page: &str, start: &str) -> Vec<String> {
    let all = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    all.filter(|link| link.starts_with(start)).map(|link| link.replace("&amp;", "&")).collect()
}

#[test]
fn every_view_comes_with_its_sql_and_its_files() {
    let bench = Bench::new(SPEC);
    bench.change_spec(&[("name: tiny", "name: tiny\nquestion: <script>alert(1)</script> & more")]);
    bench.finish();
    bench.change_spec(&[
        ("name: tiny", "name: other\nlimits: {compute: 1e18}"),
        ("samples_seen: [1280, 2560]", "samples_seen: [1280]"),
    ]);
    bench.finish();
    assert!(bench.sweep(&["fit", "tiny", "--metric", "synthetic/acc1", "--resamples", "20"]).status.code() < Some(2));
    let key = bench.ask("SELECT job_key FROM job ORDER BY job_id LIMIT 1").remove(0);
    let served = Served::start(&bench, &[]);
    let list = served.page("/");
    assert!(
        list.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more") && !list.contains("<script>alert"),
        "{list}"
    );
    assert!(list.contains("4 of 4 done") && list.contains("2 of 2 done"), "{list}");
    // What was spent is of what the spec allows, or else of what is planned, and the page says which.
    assert!(list.contains("of 1.00e18 training FLOPs") && list.contains("GMACs (100 %)"), "{list}");
    let sweep = served.page("/sweep/tiny?metric=synthetic/acc1");
    assert_eq!(sweep.matches("class=\"c done q").count(), 4 + 10, "four jobs and the scale\n{sweep}");
    assert!(sweep.contains("alpha") && sweep.contains("option selected"), "{sweep}");
    let results =
        served.page("/sweep/tiny/results?metric=all&where=seed+%3D+0+AND+model+LIKE+%27%25w32%25%27&order=-value");
    assert!(results.contains("4 rows."), "two jobs by two metrics\n{results}");
    assert!(results.contains("ORDER BY value DESC"), "{results}");
    let job = served.page(&format!("/job/{}", &key[..10]));
    assert!(job.contains(&key) && job.contains("<polyline") && job.contains("checkpoint"), "{job}");
    let compare = served.page("/compare?sweep=tiny&against=other&metric=synthetic/acc1");
    assert_eq!(compare.matches("<circle").count(), 2, "{compare}");
    assert!(
        compare.contains("On the mean of the 2 cells that both have, synthetic/acc1 is the same in both."),
        "{compare}"
    );
    let log = served.page(links(&job, "/job/").iter().find(|link| link.ends_with("events.jsonl")).expect("a log"));
    assert!(log.contains("finished"), "{log}");
    for figure in ["law", "forecast"] {
        let answer = served.ask(&format!("/sweep/tiny/{figure}.svg?metric=synthetic/acc1"), &[]);
        assert!(answer.status == 200 && answer.head.contains("image/svg+xml"), "{}", answer.head);
        assert!(answer.text().contains("<svg"), "{}", answer.text());
    }
    for (view, page) in
        [("list", &list), ("sweep", &sweep), ("results", &results), ("job", &job), ("compare", &compare)]
    {
        let files = links(page, "/data/");
        assert!(files.len() >= 3 && page.contains("<pre><code>"), "{view} shows no SQL");
        for file in files {
            let answer = served.ask(&file, &[]);
            assert_eq!(answer.status, 200, "{file}: {}", answer.text());
            match file.split('?').next().unwrap_or_default().rsplit('.').next() {
                Some("csv") => assert!(answer.text().lines().next().is_some_and(|head| head.contains(',')), "{file}"),
                Some("parquet") => assert!(answer.body.starts_with(b"PAR1"), "{file}"),
                _ => assert_eq!(
                    serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON")["schema"],
                    "sweep.sql/1"
                ),
            }
        }
    }
    // What a page shows as its SQL is what `sweep sql` runs.
    let shown = sweep.split("<pre><code>").nth(1).and_then(|rest| rest.split("</code>").next()).expect("SQL");
    let sql = shown.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let csv = bench.sweep(&["sql", &sql, "-f", "csv"]);
    assert_eq!(String::from_utf8_lossy(&csv.stdout), served.page("/data/jobs.csv?sweep=tiny&metric=synthetic/acc1"));
    served.end(Signal::SIGINT);
}

#[test]
fn what_is_wrong_is_said_with_the_way_out() {
    let bench = Bench::new(SPEC);
    let nothing = transcript(&bench.sweep(&["serve"]));
    assert!(nothing.contains("nothing has been launched here yet"), "{nothing}");
    bench.finish();
    let served = Served::start(&bench, &[]);
    for (path, status, words) in [
        ("/sweep/tony", 404, "these are: tiny"),
        ("/job/0000000", 404, "no job whose key begins"),
        ("/job/x%27--", 400, "is no job"),
        ("/nowhere", 404, "no such page"),
        ("/data/secrets.csv", 404, "no table"),
        ("/data/jobs.exe?sweep=tiny", 404, "csv, parquet and json are"),
        ("/sweep/tiny/results?order=1", 400, "no column to order by"),
        ("/sweep/tiny/results?where=true)+OR+(true", 400, "something follows it"),
        ("/sweep/tiny/results?where=true%3B+DROP+TABLE+job", 400, "something follows it"),
        ("/sweep/tiny/results?where=pg_sleep(10)+IS+NULL", 400, "is not allowed"),
        ("/sweep/tiny/results?where=(SELECT+1)%3D1", 400, "not allowed"),
        ("/sweep/tiny/results?where=nonsense+%3D+1", 400, "nonsense"),
        ("/data/results.csv?sweep=tiny&where=1)+OR+(1", 400, "something follows it"),
    ] {
        let answer = served.ask(path, &[]);
        let text = answer.text();
        assert!(answer.status == status && text.contains(words), "{path}: {}\n{text}", answer.status);
    }
    // Connections are kept between views: those of a server that has been started anew are not.
    assert!(bench.sweep(&["db", "stop"]).status.success());
    let away = served.ask("/sweep/tiny", &[]);
    assert!(away.status == 503 && away.text().contains("answer"), "{}", away.text());
    assert!(bench.sweep(&["db", "start"]).status.success());
    assert!(served.page("/sweep/tiny").contains("4 of 4 done"));
    // Names are texts, whatever is in them.
    let csv = served.page("/data/jobs.csv?sweep=tiny%27+OR+true+--&metric=a%27b/c%5C%27");
    assert_eq!(csv.lines().count(), 1, "{csv}");
    let port = served.port.to_string();
    let taken = transcript(&bench.sweep(&["serve", "--port", &port])).replace(&port, "PORT");
    insta::assert_snapshot!(taken, @r"
    exit: 3
    ----- stdout -----
    ----- stderr -----
    error: can't listen on 127.0.0.1:PORT
      caused by: Address already in use (os error 98)

    hint: another program, maybe another `sweep serve`, has that port: `--port 0` takes a free one
    ");
    served.end(Signal::SIGTERM);
}

#[test]
fn strangers_are_not_let_in() {
    let bench = Bench::new(SPEC);
    bench.finish();
    let served = Served::start(&bench, &[]);
    let status = |headers: &[(&str, &str)]| served.ask("/", headers).status;
    assert_eq!(status(&[("Host", "evil.example")]), 421);
    assert_eq!(status(&[("Host", "localhost.evil.example:80")]), 421);
    assert_eq!(status(&[("Host", "127.0.0.1:9000")]), 200, "a tunnel ends at another port");
    assert_eq!(status(&[("Host", "[::1]")]), 200);
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]), 200);
    assert_eq!(Served::answer(served.connect_by("POST", "/", &[])).status, 405);
    let head = served.ask("/", &[]).head;
    for header in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{head}");
    }
    served.end(Signal::SIGTERM);

    let token = "0123456789abcdef-right";
    let served = Served::start(&bench, &["--token", token]);
    assert!(served.url.ends_with(&format!("/?token={token}")), "{}", served.url);
    let status = |path: &str, headers: &[(&str, &str)]| served.ask(path, headers).status;
    for path in ["/", "/sweep/tiny", "/data/jobs.csv?sweep=tiny", "/page.css", "/live", "/nowhere"] {
        assert_eq!(status(path, &[]), 401, "{path}");
    }
    for wrong in ["0123456789abcdef-wrong", "", "0123456789abcdef-righ", "0123456789abcdef-right2"] {
        assert_eq!(status(&format!("/?token={wrong}"), &[]), 401, "{wrong}");
        assert_eq!(status("/", &[("Authorization", &format!("Bearer {wrong}"))]), 401, "{wrong}");
        assert_eq!(status("/", &[("Cookie", &format!("sweep_{}={wrong}", served.port))]), 401, "{wrong}");
    }
    let first = served.ask(&format!("/sweep/tiny?metric=synthetic/acc1&token={token}"), &[]);
    assert_eq!(first.status, 303);
    assert!(first.head.contains("location: /sweep/tiny?metric=synthetic%2facc1\r\n"), "{}", first.head);
    let cookie = format!("sweep_{}={token}", served.port);
    assert!(first.head.contains(&format!("set-cookie: {cookie}; httponly; samesite=strict")), "{}", first.head);
    assert_eq!(status("/sweep/tiny", &[("Cookie", &format!("a=b; {cookie}"))]), 200);
    assert_eq!(status("/sweep/tiny", &[("Authorization", &format!("Bearer {token}"))]), 200);
    assert!(transcript(&bench.sweep(&["serve", "--token", "short"])).contains("16 to 200 letters"));
    served.end(Signal::SIGTERM);

    // Beyond loopback there is always one.
    let served = Served::start(&bench, &["--listen", "0.0.0.0"]);
    let token = served.url.split("?token=").nth(1).expect("one is made").to_owned();
    assert_eq!(token.len(), 64);
    assert_eq!(served.ask("/", &[("Host", "some-machine:1")]).status, 401);
    let headers = [("Host", "some-machine:1"), ("Authorization", &*format!("Bearer {token}"))];
    assert_eq!(served.ask("/", &headers).status, 200);
    served.end(Signal::SIGTERM);
}

/// Data of the next event of that name for which `wanted` holds.
fn event(
    stream: &mut BufReader<TcpStream>,
    name: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let mut current = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).expect("the stream goes on"), 0, "the stream has ended without {name}");
        if let Some(event) = line.strip_prefix("event: ") {
            event.trim().clone_into(&mut current);
        } else if let Some(data) = line.strip_prefix("data: ").filter(|_| current == name) {
            let data = serde_json::from_str(data.trim()).expect("JSON");
            if wanted(&data) {
                return data;
            }
        }
    }
}

#[test]
fn points_and_results_come_while_a_sweep_runs() {
    let (_bench, launch, served) = Served::beside_a_launch("delay@150");
    let mut stream = served.connect("/sweep/tiny/live?metric=synthetic/acc1", &[("Accept", "text/event-stream")]);
    let running = |data: &serde_json::Value| data["id"] == "running";
    let curve = |data: &serde_json::Value| {
        let html = data["html"].as_str().unwrap_or_default();
        html.split("polyline points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
    };
    let first = curve(&event(&mut stream, "part", |data| running(data) && !curve(data).is_empty()));
    let grown = |data: &serde_json::Value| running(data) && curve(data).split(' ').count() > first.split(' ').count();
    event(&mut stream, "part", grown);
    let done = event(&mut stream, "cells", |cells| {
        cells
            .as_array()
            .is_some_and(|cells| cells.iter().any(|cell| cell["state"] == "done" && cell["value"].is_number()))
    });
    assert!(done.as_array().is_some_and(|cells| cells.len() <= 4), "{done}");
    launch.kill();
    // The stream is open: it ends, and so does the server.
    served.end(Signal::SIGTERM);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it ends");
}

#[test]
fn a_browser_shows_it_and_keeps_it_up_to_date() {
    let Some(mut browser) = Browser::find() else { return };
    let (_bench, launch, served) = Served::beside_a_launch("delay@300");
    let address = |path: &str| format!("http://localhost:{}{path}", served.port);
    // Script, style sheet and events are let through by the policy, and work: without a reload the curve grows, and
    // squares get their colours.
    browser.open(&address("/sweep/tiny?metric=synthetic/acc1"));
    browser.wait_for("document.querySelector('#live.good').textContent === 'live'");
    assert_eq!(browser.wait_for("getComputedStyle(document.querySelector('a.c')).width"), "18px");
    let curve = "document.querySelector('#running polyline').getAttribute('points').trim().split(' ').length";
    let points = browser.wait_for(curve).as_u64().expect("a number");
    browser.wait_for(&format!("{curve} > {points} && document.querySelector('#live.good') !== null"));
    browser.wait_for("document.querySelectorAll('a.c.done[data-v]').length === 4");
    assert!(launch.wait().status.success());
    browser.wait_for("document.querySelector('#summary').textContent.includes('4 of 4 done')");
    assert_eq!(browser.wait_for("document.querySelectorAll('a.c[tabindex=\"0\"]').length"), 1);
    browser.wait_for("document.querySelector('a.c').focus() === undefined");
    browser.press("ArrowRight");
    browser.wait_for("document.activeElement === document.querySelectorAll('a.c')[1]");
    browser.wait_for(
        "document.querySelector('img.fresh').complete && document.querySelector('img.fresh').naturalWidth > 0",
    );
    for path in ["/", "/sweep/tiny/results?where=seed+%3D+0", "/compare?sweep=tiny&against=tiny", "/sweep/tiny/next"] {
        browser.open(&address(path));
        browser.wait_for("document.querySelector('main h1') !== null");
        // Nothing is wider than a phone but what scrolls by itself.
        browser.resize(360, 700, true);
        browser.wait_for("document.documentElement.scrollWidth <= 360");
    }
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
    served.end(Signal::SIGTERM);
}

#[test]
fn a_job_that_runs_is_followed_in_a_browser() {
    let Some(mut browser) = Browser::find() else { return };
    let (bench, launch, served) = Served::beside_a_launch("delay@300");
    let running =
        "SELECT job_key || folder FROM job JOIN attempt USING (job_id) WHERE attempt.state = 'running' LIMIT 1";
    let running = bench.wait_for(running);
    let (key, folder) = running.split_at(64);
    browser.open(&format!("http://localhost:{}/job/{}", served.port, &key[..12]));
    browser.wait_for("document.querySelector('#live.good').textContent === 'live'");
    browser.wait_for("document.querySelector('#head .state').textContent === 'running'");
    browser.wait_for("(window.loadedOnce = true)");
    let curve = "document.querySelector('#curves polyline').getAttribute('points').trim().split(' ').length";
    let points = browser.wait_for(curve).as_u64().expect("a number");
    browser.wait_for(&format!("{curve} > {points}"));
    // What the runner writes comes too, and what was opened stays open.
    browser.wait_for("(document.querySelector('#attempts details').open = true)");
    let log = std::path::Path::new(folder).join("stderr.log");
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("it is ours");
    log.write_all(b"<b>a line</b> of the runner\n").expect("there is room");
    browser.wait_for("document.querySelector('#log pre').textContent.includes('<b>a line</b> of the runner')");
    assert!(launch.wait().status.success());
    browser.wait_for("document.querySelector('#head .state').textContent === 'done'");
    browser.wait_for("document.querySelector('#attempts .state').textContent === 'finished'");
    browser.wait_for("document.querySelector('#measurements').textContent.includes('acc1')");
    browser.wait_for("document.querySelector('#events').textContent.includes('finished')");
    browser.wait_for("document.querySelector('#attempts details').open && window.loadedOnce");
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
    served.end(Signal::SIGTERM);
}
