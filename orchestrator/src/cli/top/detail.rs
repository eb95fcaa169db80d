//! One job, closer: how far it is, its loss as a curve, the last lines of its log. Pure.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, GraphType, Paragraph};

use super::super::output::one_line;
use super::super::progress::{label, short, time};
use super::draw::{bold, colour, dim, secs_left, state_style};
use super::state::{App, Detail};
use crate::report::number::significant;

/// Rows of a curve that still say something.
const CHART_MIN: u16 = 6;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(detail) = app.detail() else {
        frame.render_widget(Paragraph::new("reading the job ..."), area);
        return;
    };
    let head = head(app, detail);
    let head_rows = (head.len() as u16).min(area.height.saturating_sub(2));
    let rest = area.height - head_rows;
    let chart_rows = if rest >= CHART_MIN + 4 && detail.row.loss.len() > 1 { rest.div_ceil(2) } else { 0 };
    let [top, chart, log] =
        Layout::vertical([Constraint::Length(head_rows), Constraint::Length(chart_rows), Constraint::Min(1)])
            .areas(area);
    frame.render_widget(Paragraph::new(head), top);
    if chart_rows > 0 {
        draw_loss(frame, chart, app, detail);
    }
    draw_log(frame, log, detail);
}

fn head(app: &App, detail: &Detail) -> Vec<Line<'static>> {
    let job = &detail.row.job;
    let place = match (job.node.as_ref().or(job.host.as_ref()), &job.handle) {
        (Some(place), Some(handle)) => format!("  on {place}, {handle}"),
        (Some(place), None) => format!("  on {place}"),
        _ => String::new(),
    };
    let mut lines = vec![
        Line::styled(one_line(&label(job)).into_owned(), bold()),
        Line::from(vec![
            Span::styled(job.state.clone(), state_style(app, job)),
            Span::raw(one_line(&format!("  attempt {}{place}", detail.attempts.len())).into_owned()),
        ]),
    ];
    let mut facts =
        vec![format!("{} of {} samples", short(job.samples_seen), job.samples_total.map_or("-".to_owned(), short))];
    facts.extend(job.samples_per_sec.map(|rate| format!("{}/s", short(rate as i64))));
    facts.extend(secs_left(job).map(|secs| format!("{} left", time(secs))));
    facts.extend(job.loss.map(|loss| format!("loss {}", significant(loss, 4))));
    facts.extend(job.data_wait_secs.map(|secs| format!("waited {} for data", time(secs))));
    facts.extend(job.spikes.filter(|&spikes| spikes > 0).map(|spikes| format!("{spikes} loss spikes")));
    lines.push(Line::from(facts.join(", ")));
    if let Some(reason) = &job.reason {
        lines.push(Line::styled(one_line(reason).into_owned(), colour(app, Color::Red)));
    }
    if detail.attempts.len() > 1 {
        let states: Vec<&str> = detail.attempts.iter().map(|(state, _)| state.as_str()).collect();
        lines.push(Line::styled(format!("attempts: {}", states.join(", ")), dim()));
    }
    lines
}

fn draw_loss(frame: &mut Frame<'_>, area: Rect, app: &App, detail: &Detail) {
    let points: Vec<(f64, f64)> = detail
        .row
        .loss
        .iter()
        .filter(|(_, value)| value.is_finite())
        .map(|&(samples, value)| (samples as f64, value))
        .collect();
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        points.iter().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (begin, end) = bounds(|point| point.0);
    let (low, high) = bounds(|point| point.1);
    // A flat curve lies in the middle.
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
    let curve = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(colour(app, Color::Cyan))
        .data(&points);
    let chart = Chart::new(vec![curve])
        .block(Block::new().borders(Borders::TOP).title(" training loss ").border_style(dim()))
        .x_axis(
            Axis::default()
                .bounds([begin, end.max(begin + 1.0)])
                .labels([short(begin as i64), format!("{} samples", short(end as i64))])
                .style(dim()),
        )
        .y_axis(Axis::default().bounds([low, high]).labels([significant(low, 3), significant(high, 3)]).style(dim()));
    frame.render_widget(chart, area);
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, detail: &Detail) {
    let block = Block::new().borders(Borders::TOP).title(" log ").border_style(dim());
    let room = block.inner(area).height as usize;
    let from = detail.log.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = detail.log[from..].iter().map(|line| Line::raw(one_line(line))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
