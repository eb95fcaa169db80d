//! How `sweep top` looks: state in, cells out. Pure.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Gauge, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::super::output::one_line;
use super::super::progress::{short, time};
use super::detail;
use super::state::{App, Page, Row, View};
use crate::store::{JobProgress, Point};

/// Below so many columns or rows there is only room to say so.
const WIDTH_MIN: u16 = 24;
const HEIGHT_MIN: u16 = 5;
/// Columns of a sparkline.
const SPARK: usize = 16;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const KEYS: &str = "q quit  ↑↓ jk move  enter details  s sweeps  ? help";
const KEYS_DETAIL: &str = "q quit  esc back  ↑↓ jk next job  s sweeps  ? help";
const KEYS_SWEEPS: &str = "q quit  ↑↓ jk move  enter show  esc back  ? help";

/// Draws everything.
pub(super) fn screen(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let said = format!("{}x{} is too small", area.width, area.height);
        frame.render_widget(Paragraph::new(said).wrap(Wrap { trim: true }), area);
        return;
    }
    let [title, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    draw_title(frame, title, app);
    let keys = match (app.page, app.view()) {
        (Page::Help, _) => {
            frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), body);
            "any key: back"
        }
        (Page::Sweeps, _) => {
            draw_sweeps(frame, body, app);
            KEYS_SWEEPS
        }
        (_, None) => {
            frame.render_widget(Paragraph::new("reading the database ..."), body);
            KEYS
        }
        (Page::Detail, Some(_)) => {
            detail::draw(frame, body, app);
            KEYS_DETAIL
        }
        (Page::Jobs, Some(view)) => {
            draw_jobs(frame, body, app, view);
            KEYS
        }
    };
    frame.render_widget(Paragraph::new(keys).style(dim()), foot);
    if let Some(why) = &app.away {
        draw_away(frame, area, app, why);
    }
}

const HELP: &str = "\
Jobs that run, those that were given up, and the next that wait; the screen is
read anew every second, and when the database says that something ended.

  ↑ ↓, j k, PgUp PgDn, g G   move
  enter                      a job's loss and log; esc goes back
  s                          another sweep
  q, Ctrl-C                  quit (the sweep goes on)
  Ctrl-Z                     stop; `fg` comes back

left    time until all is done at the speed of what runs now
spend   training so far, all attempts; GPU-hours where a GPU is known of
again   attempts that did not finish: their jobs go on from a checkpoint

`sweep status` prints the same once, `sweep events -f` what happens.";

fn draw_title(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let at = app.snapshot.as_ref().map_or("", |snapshot| &snapshot.at);
    let [left, right] = Layout::horizontal([Constraint::Min(1), Constraint::Length(at.len() as u16 + 1)]).areas(area);
    let mut spans = vec![Span::styled("sweep top", bold())];
    if let Some(sweep) = &app.sweep {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(one_line(sweep).into_owned(), bold()));
    }
    if let Some(question) = app.view().and_then(|view| view.question.lines().next()) {
        spans.push(Span::styled(format!("  {}", one_line(question)), dim()));
    }
    frame.render_widget(Line::from(spans), left);
    frame.render_widget(Paragraph::new(at).alignment(Alignment::Right).style(dim()), right);
}

fn draw_away(frame: &mut Frame<'_>, area: Rect, app: &App, why: &str) {
    let height = 4.min(area.height);
    let place = Rect { y: area.y + area.height - height, height, ..area };
    frame.render_widget(Clear, place);
    let block = Block::new().borders(Borders::TOP).title(" the database doesn't answer; trying again ");
    let text = Paragraph::new(one_line(why).into_owned()).wrap(Wrap { trim: true });
    frame.render_widget(text.block(block.border_style(colour(app, Color::Red))), place);
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, app: &App, view: &View) {
    // The list matters most where there is little room.
    let head = if area.height >= 10 { 4 } else { 1 };
    let [head, list] = Layout::vertical([Constraint::Length(head), Constraint::Min(1)]).areas(area);
    draw_head(frame, head, app, view);
    let columns = columns(list.width);
    let header = TableRow::new(columns.iter().map(|column| right(column.title(), column.is_number()))).style(dim());
    let rows = view.jobs.iter().map(|row| {
        let cells = columns.iter().map(|column| column.cell(row, app));
        TableRow::new(cells)
    });
    let table = Table::new(rows, columns.iter().map(|column| column.width()))
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(app.place());
    frame.render_stateful_widget(table, list, &mut state);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App, view: &View) {
    let lines: Vec<Rect> = area.rows().collect();
    let counts = &view.totals.counts;
    let total = counts.total().max(1);
    let ended = format!("{} of {} done", counts.done, counts.total());
    let rest = format!(
        "  {} running, {} waiting{}{}",
        counts.running,
        counts.pending,
        if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() },
        if counts.cancelled > 0 { format!(", {} cancelled", counts.cancelled) } else { String::new() },
    );
    let [bar, words] =
        Layout::horizontal([Constraint::Length(30), Constraint::Min(1)]).areas(lines.first().copied().unwrap_or(area));
    let gauge = Gauge::default()
        .ratio((counts.done as f64 / total as f64).clamp(0.0, 1.0))
        .label(ended)
        .gauge_style(colour(app, Color::Green))
        .use_unicode(true);
    frame.render_widget(gauge, bar);
    frame.render_widget(Paragraph::new(rest), words);
    let Some(speed) = lines.get(1) else { return };
    let left = view.secs_left().map_or("-".to_owned(), time);
    let done = view.activity.done_last_hour;
    let rate = short(view.samples_per_sec() as i64);
    frame.render_widget(
        Paragraph::new(format!("speed   {rate} samples/s, {done} jobs done in the last hour   left {left}")),
        *speed,
    );
    frame.render_widget(Paragraph::new(spend(view)), lines[2]);
    let troubles = view.troubles();
    let (said, style) = if troubles.is_empty() {
        ("all well".to_owned(), colour(app, Color::Green))
    } else {
        (troubles.join(", "), colour(app, Color::Yellow).add_modifier(Modifier::BOLD))
    };
    frame.render_widget(Line::from(vec![Span::raw("health  "), Span::styled(said, style)]), lines[3]);
}

/// What it has taken, and what was done again.
fn spend(view: &View) -> String {
    let activity = &view.activity;
    let spent = match activity.gpu_hours {
        Some(hours) => format!("{} GPU-hours", crate::report::number::significant(hours, 3)),
        None => format!("{} of training", time(activity.train_secs)),
    };
    let energy = activity
        .joules
        .map_or(String::new(), |joules| format!(", {} kWh", crate::report::number::significant(joules / 3.6e6, 3)));
    let again: Vec<String> = [(activity.failed, "failed"), (activity.lost, "lost"), (activity.stopped, "stopped")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let again = if again.is_empty() { "none".to_owned() } else { again.join(", ") };
    format!("spend   {spent}{energy}   again {again}")
}

/// Columns of the list of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Job,
    Model,
    Samples,
    State,
    Loss,
    Curve,
    Speed,
    Left,
    More,
}

/// Those that fit, by what matters most.
fn columns(width: u16) -> Vec<Column> {
    let order = [
        Column::Job,
        Column::State,
        Column::Loss,
        Column::Curve,
        Column::Model,
        Column::Left,
        Column::More,
        Column::Samples,
        Column::Speed,
    ];
    let mut taken = 0;
    let mut chosen: Vec<Column> = order
        .into_iter()
        .take_while(|column| {
            taken += column.least() + 1;
            taken <= width + 1
        })
        .collect();
    chosen.sort_by_key(|column| *column as u8);
    chosen
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Column::Job => "job",
            Column::Model => "model",
            Column::Samples => "samples",
            Column::State => "state",
            Column::Loss => "loss",
            Column::Curve => "loss so far",
            Column::Speed => "per s",
            Column::Left => "left",
            Column::More => "on, or why",
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Column::Samples | Column::Loss | Column::Speed | Column::Left)
    }

    fn least(self) -> u16 {
        match self {
            Column::Job | Column::More => 12,
            Column::Model => 11,
            Column::Samples => 7,
            Column::State => 9,
            Column::Loss | Column::Speed => 6,
            Column::Curve => SPARK as u16,
            Column::Left => 8,
        }
    }

    fn width(self) -> Constraint {
        match self {
            Column::Model | Column::More => Constraint::Min(self.least()),
            _ => Constraint::Length(self.least()),
        }
    }

    fn cell(self, row: &Row, app: &App) -> Cell<'static> {
        let job = &row.job;
        let runs = job.state == "running";
        let text = match self {
            Column::Job => job.job_key[..12].to_owned(),
            Column::Model => one_line(&job.model).into_owned(),
            Column::Samples => job.samples_total.map_or("-".to_owned(), short),
            Column::State => return Cell::new(state(job)).style(state_style(app, job)),
            Column::Loss => job.loss.map_or(String::new(), |loss| format!("{loss:.3}")),
            Column::Curve => return Cell::new(spark(&row.loss, SPARK)).style(colour(app, Color::Cyan)),
            Column::Speed => job.samples_per_sec.filter(|_| runs).map_or(String::new(), |rate| short(rate as i64)),
            Column::Left => secs_left(job).map_or(String::new(), time),
            Column::More => one_line(&more(job)).into_owned(),
        };
        right(text, self.is_number())
    }
}

/// Aligned as numbers are, or not.
fn right(text: impl Into<String>, is_number: bool) -> Cell<'static> {
    let line = Line::from(text.into());
    Cell::new(if is_number { line.right_aligned() } else { line })
}

/// `42 %` of what runs, the state of others.
fn state(job: &JobProgress) -> String {
    match &*job.state {
        "running" if job.samples_total.is_some() => format!("{:.0} %", 100.0 * job.share_done()),
        "pending" => "waiting".to_owned(),
        state => state.to_owned(),
    }
}

pub(super) fn state_style(app: &App, job: &JobProgress) -> Style {
    match &*job.state {
        "running" | "done" => colour(app, Color::Green),
        "failed" => colour(app, Color::Red).add_modifier(Modifier::BOLD),
        "cancelled" => colour(app, Color::Yellow),
        _ => dim(),
    }
}

/// Seconds until a job that runs is done.
pub(super) fn secs_left(job: &JobProgress) -> Option<f64> {
    let rate = job.samples_per_sec.filter(|&rate| rate > 0.0 && job.state == "running")?;
    Some((job.samples_of_ours() - job.samples_seen).max(0) as f64 / rate)
}

/// Why a job is not done, or where it is.
fn more(job: &JobProgress) -> String {
    let waits = job.waits_for.as_ref().map(|parent| format!("goes on from {}", &parent[..12]));
    let place = job.node.as_ref().or(job.host.as_ref());
    match &*job.state {
        "pending" => waits.or_else(|| job.host.as_ref().map(|host| format!("starts on {host}"))).unwrap_or_default(),
        "running" => place.cloned().unwrap_or_default(),
        _ => job.reason.clone().unwrap_or_default(),
    }
}

/// Values as a row of bars, the lowest to the highest; the last so many.
pub(super) fn spark(curve: &[Point], width: usize) -> String {
    let values: Vec<f64> =
        curve.iter().rev().take(width).rev().map(|&(_, value)| value).filter(|value| value.is_finite()).collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    let bar = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        SPARKS[((share * SPARKS.len() as f64) as usize).min(SPARKS.len() - 1)]
    };
    values.into_iter().map(bar).collect()
}

fn draw_sweeps(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let header = ["sweep", "jobs", "done", "running", "failed", "question"];
    let rows = app.sweeps().iter().map(|sweep| {
        let counts = &sweep.counts;
        let numbers = [counts.total(), counts.done, counts.running, counts.failed];
        let question = sweep.question.lines().next().unwrap_or_default();
        std::iter::once(Cell::new(one_line(&sweep.name).into_owned()))
            .chain(numbers.map(|number| right(number.to_string(), true)))
            .chain([Cell::new(one_line(question).into_owned())])
            .collect::<TableRow<'_>>()
    });
    let widths = [
        Constraint::Min(12),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Fill(2),
    ];
    let header = header.iter().enumerate().map(|(index, title)| right(*title, (1..5).contains(&index)));
    let table = Table::new(rows, widths)
        .header(header.collect::<TableRow<'_>>().style(dim()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!app.sweeps().is_empty()).then_some(app.sweep_place));
    frame.render_stateful_widget(table, area, &mut state);
}

pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// A colour where colours may be used.
pub(super) fn colour(app: &App, colour: Color) -> Style {
    if app.colours { Style::new().fg(colour) } else { Style::new() }
}
