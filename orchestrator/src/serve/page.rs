//! What all pages share: head, navigation, messages.

use std::fmt::Display;

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

/// A page: its title, where it lies, its content. `live`: address of the events that keep it up to date.
pub(super) fn page(title: &str, path: &[(&str, &str)], live: Option<&str>, content: &Markup) -> Html<String> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · sweep" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
            }
            body data-live=[live] {
                a.skip href="#content" { "Skip to content" }
                header {
                    nav aria-label="Where you are" {
                        a.brand href="/" { "sweep" }
                        @for (name, address) in path { span.sep aria-hidden="true" { "/" } a href=(address) { (name) } }
                    }
                    @if live.is_some() { span #live.quiet role="status" { "not live: reload to see what is new" } }
                }
                main #content { (content) }
            }
        }
    };
    Html(markup.into_string())
}

/// A page that says one thing.
pub(super) fn message(status: StatusCode, title: &str, words: &str) -> impl IntoResponse + use<> {
    (status, page(title, &[], None, &html! { h1 { (title) } p { (words) } }))
}

/// A request that could not be answered: the status, and what was wrong with the way out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) words: String,
}

impl Refusal {
    pub(super) fn not_found(words: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::NOT_FOUND, words: words.into() }
    }

    pub(super) fn unavailable(error: &impl Display, hint: Option<&str>) -> Refusal {
        Refusal { status: StatusCode::SERVICE_UNAVAILABLE, words: hinted(error, hint) }
    }

    pub(super) fn bad(words: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, words: words.into() }
    }
}

/// What was wrong, with the way out where one is known.
pub(super) fn hinted(words: &impl Display, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{words}{hint}.")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let title = match self.status {
            StatusCode::NOT_FOUND => "Not here",
            StatusCode::BAD_REQUEST => "That can't be asked",
            StatusCode::SERVICE_UNAVAILABLE => "The database doesn't answer",
            _ => "That didn't work",
        };
        message(self.status, title, &self.words).into_response()
    }
}
