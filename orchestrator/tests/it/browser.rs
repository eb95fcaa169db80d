//! A real browser, driven over its DevTools protocol by two pipes. Needs Chromium: on a machine without it its tests
//! say so and pass, with `SWEEP_TEST_BROWSER` set they fail.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A headless Chromium with one page; killed when it is dropped.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    next_id: u64,
    session: Option<String>,
    /// What it said against the page: errors of scripts, refusals of the policy.
    pub(crate) complaints: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// `None` where there is none, which it says.
    pub(crate) fn find() -> Option<Browser> {
        let is_there = |name: &&str| {
            let mut command = Command::new(name);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(is_there) else {
            assert!(
                std::env::var_os("SWEEP_TEST_BROWSER").is_none(),
                "SWEEP_TEST_BROWSER is set, and there is no Chromium"
            );
            eprintln!("skipped: no Chromium on this machine (make setup-browser)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (input, output) = (folder.path().join("input"), folder.path().join("output"));
        assert!(Command::new("mkfifo").args([&input, &output]).status().expect("mkfifo runs").success());
        // It reads at descriptor 3 and writes at 4.
        let child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe \
                          --user-data-dir=\"$3\" about:blank 3<\"$1\" 4>\"$2\"",
            ])
            .args([program.as_ref(), input.as_os_str(), output.as_os_str(), folder.path().join("profile").as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let to = fs::OpenOptions::new().write(true).open(&input).expect("the shell reads");
        let from = BufReader::new(File::open(&output).expect("the shell writes"));
        let mut browser =
            Browser { child, to, from, next_id: 1, session: None, complaints: Vec::new(), _folder: folder };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// The result of a command that has to work.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Events on the way are looked through for complaints.
    fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("it listens");
        loop {
            let mut bytes = Vec::new();
            assert_ne!(self.from.read_until(0, &mut bytes).expect("it speaks"), 0, "the browser has ended");
            bytes.pop();
            let said: Value = serde_json::from_slice(&bytes).expect("JSON");
            if said["id"] == id {
                return if said["error"].is_null() { Ok(said["result"].clone()) } else { Err(said["error"].clone()) };
            }
            let event = said["method"].as_str().unwrap_or_default();
            if matches!(event, "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled") {
                self.complaints.push(said.to_string());
            }
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        let said = self.call("Page.navigate", &json!({"url": url}));
        assert!(said["errorText"].is_null(), "{url}: {said}");
        self.wait_for(&format!("location.href === {} && document.readyState === 'complete'", json!(url)));
    }

    /// Waits until a condition in JavaScript holds, and gives its value.
    pub(crate) fn wait_for(&mut self, condition: &str) -> Value {
        let expression = format!(
            "new Promise((resolve, reject) => {{
                 const end = Date.now() + 90000;
                 const look = () => {{
                     let value = null;
                     try {{ value = {condition}; }} catch {{}}
                     if (value) resolve(value);
                     else if (Date.now() > end) reject(new Error(document.documentElement.outerHTML));
                     else setTimeout(look, 50);
                 }};
                 look();
             }})"
        );
        // A page that has just gone takes its promises with it.
        let mut tries = 0;
        let said = loop {
            match self.evaluate(&expression) {
                Ok(said) => break said,
                Err(error) if tries == 5 => panic!("{condition}: {error}"),
                Err(_) => tries += 1,
            }
        };
        assert!(said["exceptionDetails"].is_null(), "{condition} never held: {said}");
        said["result"]["value"].clone()
    }

    /// What the promise of an expression comes to, or how it fails.
    fn evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        self.try_call("Runtime.evaluate", &asked)
    }

    /// Of the window that pages see, in CSS pixels.
    pub(crate) fn resize(&mut self, width: u32, height: u32, mobile: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Runs steps in the page, the body of an async function in which `frame()` waits for the next frame, and gives
    /// what they return.
    pub(crate) fn run(&mut self, steps: &str) -> Value {
        let expression =
            format!("(async () => {{ const frame = () => new Promise(requestAnimationFrame); {steps} }})()");
        let said = self.evaluate(&expression).unwrap_or_else(|error| panic!("{steps}: {error}"));
        assert!(said["exceptionDetails"].is_null(), "{steps}: {said}");
        said["result"]["value"].clone()
    }

    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", &json!({"type": kind, "key": key, "code": key}));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
