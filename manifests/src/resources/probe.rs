//! Probes as `k8s.io/api/core/v1` prints them.

use super::IntOrString;
use super::mirror::mirror;

mirror! {
    /// A liveness, readiness or startup probe (Kubernetes: Probe). All times are whole seconds.
    pub struct Probe {
        exec: Option<ExecAction> = "exec",
        http_get: Option<HttpGetAction> = "httpGet",
        tcp_socket: Option<TcpSocketAction> = "tcpSocket",
        grpc: Option<GrpcAction> = "grpc",
        initial_delay_seconds: i32 = "initialDelaySeconds",
        timeout_seconds: i32 = "timeoutSeconds",
        /// 0 on a readiness probe: Knative's aggressive probing.
        period_seconds: i32 = "periodSeconds",
        success_threshold: i32 = "successThreshold",
        failure_threshold: i32 = "failureThreshold",
        termination_grace_period_seconds: Option<i64> = "terminationGracePeriodSeconds",
    }

    /// A command that must exit 0 (Kubernetes: ExecAction).
    pub struct ExecAction {
        command: Vec<String> = "command",
    }

    /// A `GET` that must answer 200 to 399 (Kubernetes: HTTPGetAction).
    pub struct HttpGetAction {
        path: String = "path",
        /// 0: the container's port.
        port: IntOrString = "port" always,
        host: String = "host",
        scheme: String = "scheme",
        http_headers: Vec<HttpHeader> = "httpHeaders",
    }

    /// A header of a probe (Kubernetes: HTTPHeader).
    pub struct HttpHeader {
        name: String = "name" always,
        value: String = "value" always,
    }

    /// A port that must accept a connection (Kubernetes: TCPSocketAction).
    pub struct TcpSocketAction {
        /// 0: the container's port.
        port: IntOrString = "port" always,
        host: String = "host",
    }

    /// The gRPC health protocol (Kubernetes: GRPCAction).
    pub struct GrpcAction {
        port: i32 = "port" always,
        service: Option<String> = "service" always,
    }
}
