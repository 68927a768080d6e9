//! Tokens: those of Entra ID, and those of the metadata service of machines.

use std::time::Duration;

use http::{Method, Request, Response, header};
use serde_json::json;

use crate::{State, answer, error};

impl State {
    /// Gives a token, if one is asked for.
    pub(crate) fn token(&mut self, request: &Request<Vec<u8>>, now: Duration) -> Option<Response<Vec<u8>>> {
        let path = request.uri().path();
        let form = String::from_utf8_lossy(request.body()).into_owned();
        if path == "/metadata/identity/oauth2/token" {
            if request.headers().get("metadata").is_none_or(|value| value != "true") {
                return Some(error(400, "invalid_request", "Required metadata header not specified"));
            }
            return Some(self.give(now));
        }
        if !(path.ends_with("/oauth2/v2.0/token") && request.method() == Method::POST) {
            return None;
        }
        let has = |field: &str| form.split('&').any(|pair| pair.strip_prefix(field).is_some_and(|rest| rest.len() > 1));
        if !form.contains("grant_type=client_credentials") || !has("client_id") || !has("scope") {
            return Some(answer(400, &json!({"error": "invalid_request"})));
        }
        if !(has("client_secret") || has("client_assertion")) || form.contains("wrong") {
            let description = "AADSTS7000215: Invalid client secret provided.";
            return Some(answer(401, &json!({"error": "invalid_client", "error_description": description})));
        }
        Some(self.give(now))
    }

    fn give(&mut self, now: Duration) -> Response<Vec<u8>> {
        let token = format!("fake-{}", self.next());
        self.tokens.insert(token.clone(), now + self.token_lasts);
        let lasts = self.token_lasts.as_secs();
        // The metadata service has numbers as text, Entra ID has them as numbers.
        answer(200, &json!({"token_type": "Bearer", "access_token": token, "expires_in": lasts}))
    }

    /// Whether who asks has a token that is good.
    pub(crate) fn is_known(&self, request: &Request<Vec<u8>>, now: Duration) -> bool {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|shown| shown.strip_prefix("Bearer "));
        token.and_then(|token| self.tokens.get(token)).is_some_and(|until| now < *until)
    }
}
