//! Who may look: names of this machine on loopback, the token elsewhere. And what every answer says to browsers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::Site;
use super::page::message;

/// No script, style or image but ours, and none inline: a text that slipped through unescaped could do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A token can be guessed as often as anybody likes.
pub const TOKEN_LENGTH_MIN: usize = 16;

/// Whether `token` can be a token: it goes into a header and an address as it is.
pub fn is_token(token: &str) -> bool {
    (TOKEN_LENGTH_MIN..=200).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
}

/// Lets a request through, or says why not.
pub(super) async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let refusal = refusal(&site, &request);
    let mut response = match refusal {
        Some(response) => response,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        // A picture has a policy of its own.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refusal(site: &Site, request: &Request) -> Option<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(
            message(StatusCode::METHOD_NOT_ALLOWED, "This page only shows", "It takes GET and HEAD.").into_response(),
        );
    }
    let headers = request.headers();
    // Another site's page must not have us work for it, or find out what is here by what loads.
    if header(headers, "sec-fetch-site") == Some("cross-site") && header(headers, "sec-fetch-mode") != Some("navigate")
    {
        return Some(
            message(StatusCode::FORBIDDEN, "Asked from another site", "Open the page itself.").into_response(),
        );
    }
    // A name that somebody else's DNS leads to this machine is not a name of this machine.
    if site.loopback && !is_of_this_machine(headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()) {
        return Some(
            message(
                StatusCode::MISDIRECTED_REQUEST,
                "Not by that name",
                "This page answers to localhost, 127.0.0.1 and [::1] alone. `sweep serve --listen ADDRESS` lets other machines in.",
            )
            .into_response(),
        );
    }
    let token = site.token.as_deref()?;
    let cookie = cookie_name(site.port);
    if [token_of_cookie(headers, &cookie), bearer(headers)].into_iter().flatten().any(|given| is_equal(given, token)) {
        return None;
    }
    match given_in_address(request) {
        Some((given, rest)) if is_equal(&given, token) => {
            // It goes from the address, which is seen and kept, into a cookie.
            let cookie = format!("{cookie}={token}; HttpOnly; SameSite=Strict; Path=/");
            Some((StatusCode::SEE_OTHER, [(LOCATION, rest), (SET_COOKIE, cookie)]).into_response())
        }
        _ => Some(
            message(
                StatusCode::UNAUTHORIZED,
                "A token is wanted",
                "Open the address that `sweep serve` printed: it ends with ?token=... . Programs send `Authorization: Bearer TOKEN`.",
            )
            .into_response(),
        ),
    }
}

fn is_equal(given: &str, token: &str) -> bool {
    given.as_bytes().ct_eq(token.as_bytes()).into()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a `Host` header names this machine by a name that only it has, at any port: a tunnel may end at another.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Cookies do not tell ports apart.
fn cookie_name(port: u16) -> String {
    format!("sweep_{port}")
}

fn token_of_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The token in the query, and the address without it.
fn given_in_address(request: &Request) -> Option<(String, String)> {
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(request.uri().query()?.as_bytes()).into_owned().collect();
    let (_, token) = pairs.iter().find(|(key, _)| key == "token")?.clone();
    let others = pairs.iter().filter(|(key, _)| key != "token");
    let rest = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish();
    // `//host` would be another host.
    let path = format!("/{}", request.uri().path().trim_start_matches('/'));
    Some((token, if rest.is_empty() { path } else { format!("{path}?{rest}") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "localhost:8040", "LOCALHOST:1", "127.0.0.1:9", "127.1.2.3", "[::1]:8040", "[::1]"] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "10.0.0.1:80",
            "[::2]:1",
            "[::1",
        ] {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }

    #[test]
    fn tokens() {
        assert!(is_token("0123456789abcdef"));
        assert!(!is_token("short") && !is_token("0123456789abcdef;") && !is_token("0123456789abcdef\r\n"));
    }

    #[test]
    fn the_token_leaves_the_address_and_the_host_stays() {
        let request = |uri: &str| Request::builder().uri(uri).body(axum::body::Body::empty()).expect("a request");
        let given = |uri: &str| given_in_address(&request(uri)).expect("a token");
        assert_eq!(given("/sweep/a?metric=x%2Fy&token=t"), ("t".to_owned(), "/sweep/a?metric=x%2Fy".to_owned()));
        assert_eq!(given("//evil.example/?token=t").1, "/evil.example/");
    }
}
