//! `/metrics`, `/healthz` and `/readyz` for those who watch the host. On loopback by default; it tells no identities.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::host::Host;

/// The kind of text that Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the listener; so that a start fails where it cannot.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` says so.
pub async fn serve(listener: TcpListener, host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(host);
    let ended = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    if let Err(error) = ended.await {
        tracing::warn!(%error, "monitoring is not answered any more");
    }
}

async fn metrics(State(host): State<Arc<Host>>) -> impl IntoResponse {
    host.measure().await;
    ([(header::CONTENT_TYPE, OPEN_METRICS)], host.metrics.text())
}

/// Whether the process works at all: an answer is the proof.
async fn healthy() -> &'static str {
    "ok\n"
}

/// Whether devices should be sent here.
async fn ready(State(host): State<Arc<Host>>) -> (StatusCode, String) {
    match host.readiness().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
