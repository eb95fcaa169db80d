//! A report in a real browser: what its script and its style sheet do.

use serde_json::json;

use crate::browser::Browser;
use crate::report::{GRID, seeded};

#[tokio::test(flavor = "multi_thread")]
async fn marks_tables_and_choices_work_in_a_browser() {
    let Some(mut browser) = Browser::find() else { return };
    let project = seeded(&[GRID]).await;
    let page = project.path().join(project.ok(&["report", "grid", "--quick"]).trim());
    let page = format!("file://{}", page.display());
    browser.resize(1300, 1000, false);
    browser.open(&page);

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
    let answer = browser.run(marks);
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
    browser.open("about:blank");
    browser.open(&page);
    let answer = browser.run(choices);
    assert_eq!(answer["first"], json!([true, false, false]), "{answer}");
    assert_eq!(answer["second"], json!([false, true, false]), "{answer}");
    assert_eq!(answer["byExponent"][0], json!("emoji-val image_retrieval_recall@5"), "{answer}");
    assert_eq!((&answer["left"], &answer["kept"]), (&json!(1), &json!(2)), "{answer}");
    assert_eq!(answer["sorted"], json!(["16.4k", "262k"]), "{answer}");

    // A phone: nothing is wider than the screen.
    browser.resize(390, 800, false);
    browser.open("about:blank");
    browser.open(&page);
    let answer = browser.run("const page = document.documentElement; return [page.scrollWidth, page.clientWidth];");
    assert!(answer[0].as_u64() <= answer[1].as_u64() && answer[1].as_u64() > Some(300), "{answer}");
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}
