//! A report in a real browser: what its script and its style sheet do. Needs Chromium (Debian's `chromium`, or
//! `SWEEP_TEST_CHROMIUM`, its path); on a machine without it these tests say so and pass, with the variable set they
//! fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::report::{GRID, seeded};

/// `None`: there is no browser here.
fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SWEEP_TEST_CHROMIUM") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "SWEEP_TEST_CHROMIUM is set, and {} is no file", path.display());
        return Some(path);
    }
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = found.iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no Chromium on this machine (apt-get install chromium)");
    }
    found
}

/// Opens `page`, runs `steps` in it (the body of an async function) and gives what they return.
fn drive(chromium: &Path, page: &Path, width: u32, steps: &str) -> Value {
    let html = std::fs::read_to_string(page).expect("a page");
    let script = format!(
        "<pre id=\"answer\"></pre><script>(async () => {{ const frame = () => new Promise(requestAnimationFrame); {steps} }})()\
         .catch(error => String(error.stack))\
         .then(answer => {{ document.getElementById('answer').textContent = JSON.stringify(answer) }})\
         </script></body>"
    );
    let driven = page.with_file_name("driven.html");
    std::fs::write(&driven, html.replace("</body>", &script)).expect("it can be written");
    let profile = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=20000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},1000"))
        .arg("--dump-dom")
        .arg(format!("file://{}", driven.display()))
        .output()
        .expect("Chromium starts");
    let dom = String::from_utf8_lossy(&output.stdout);
    let answer = dom.split_once("<pre id=\"answer\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let answer = answer.map(|(answer, _)| answer).filter(|answer| !answer.is_empty());
    let answer = answer.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&output.stderr)));
    let answer = answer.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_tables_and_choices_work_in_a_browser() {
    let Some(chromium) = chromium() else { return };
    let project = seeded(&[GRID]).await;
    let page = project.path().join(project.ok(&["report", "grid", "--quick"]).trim());

    let marks = "
        const svg = document.querySelector('figure.headline svg');
        svg.scrollIntoView();
        const mark = svg.querySelector('.j[data-j=\"4\"]');
        const box = mark.lastElementChild.getBoundingClientRect();
        const at = { clientX: box.x + box.width / 2 + 3, clientY: box.y + box.height / 2, bubbles: true };
        svg.dispatchEvent(new PointerEvent('pointermove', at));
        await frame(); await frame();
        const card = document.getElementById('card');
        const on = () => document.querySelectorAll('.j.on').length;
        const hovered = { shown: !card.hidden, text: card.textContent, on: on() };
        svg.dispatchEvent(new MouseEvent('click', at));
        const pinned = card.classList.contains('pinned');
        document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
        const left = { hidden: card.hidden, on: on() };
        svg.focus();
        svg.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
        return { hovered, pinned, left, keyboard: !card.hidden && on() > 0, label: svg.getAttribute('aria-label') };";
    let answer = drive(&chromium, &page, 1300, marks);
    let text = answer["hovered"]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    for words in ["emoji-val/", "model", "seed", "attempts1", "log"] {
        assert!(text.contains(words), "{words}: {answer}");
    }
    // The headline's, three small multiples', three large figures', three grids', the curve, the row.
    assert!(answer["hovered"]["on"].as_u64() >= Some(10), "{answer}");
    assert_eq!((&answer["pinned"], &answer["keyboard"]), (&json!(true), &json!(true)), "{answer}");
    assert_eq!(answer["left"], json!({ "hidden": true, "on": 0 }));
    assert!(answer["label"].as_str().is_some_and(|label| label.contains("Arrow keys")), "{answer}");

    let choices = "
        const shown = selector => getComputedStyle(document.querySelector(selector)).display !== 'none';
        const layers = () => [0, 1, 2].map(number => shown(`.tile .p${number}`) && shown(`figure.headline .p${number}`));
        const first = layers();
        document.getElementById('points-1').click();
        const second = layers();
        const order = () => [...document.querySelectorAll('.tile h3')].map(head => head.textContent.replace(/\\s+/g, ' ').trim());
        document.getElementById('order-alpha').click();
        const byExponent = order();
        document.getElementById('group-retrieval').click();
        const left = [...document.querySelectorAll('.tile')].filter(tile => tile.offsetParent).length;
        const jobs = [...document.querySelectorAll('table')].find(table => table.tBodies[0].rows.length === 18);
        const column = [...jobs.tHead.rows[0].cells].findIndex(cell => cell.textContent === 'samples seen');
        jobs.tHead.rows[0].cells[column].querySelector('button').click();
        const sorted = [...jobs.tBodies[0].rows].map(row => row.cells[column].textContent);
        const input = jobs.parentElement.previousElementSibling.querySelector('input');
        input.value = 'cpu-m 65.5k';
        input.dispatchEvent(new Event('input'));
        const kept = [...jobs.tBodies[0].rows].filter(row => !row.hidden).length;
        return { first, second, byExponent, left, sorted: [sorted[0], sorted[17]], kept };";
    let answer = drive(&chromium, &page, 1300, choices);
    assert_eq!(answer["first"], json!([true, false, false]), "{answer}");
    assert_eq!(answer["second"], json!([false, true, false]), "{answer}");
    assert_eq!(answer["byExponent"][0], json!("emoji-val image_retrieval_recall@5"), "{answer}");
    assert_eq!((&answer["left"], &answer["kept"]), (&json!(1), &json!(2)), "{answer}");
    assert_eq!(answer["sorted"], json!(["16.4k", "262k"]), "{answer}");

    // A phone: nothing is wider than the screen. Headless windows are at least 500 wide, so a frame has its width.
    let phone = "
        if (window !== window.top) return null;
        const frame390 = document.createElement('iframe');
        frame390.style.width = '390px';
        frame390.style.height = '800px';
        frame390.srcdoc = document.documentElement.outerHTML.replace(/<script>[^]*?<\\/script>/g, '');
        const loaded = new Promise(resolve => frame390.onload = resolve);
        document.body.append(frame390);
        await loaded;
        const inner = frame390.contentDocument.documentElement;
        return [inner.scrollWidth, inner.clientWidth];";
    let answer = drive(&chromium, &page, 1300, phone);
    assert!(answer[0].as_u64() <= answer[1].as_u64() && answer[1].as_u64() > Some(300), "{answer}");
}
