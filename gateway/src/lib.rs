//! Sockets in, sockets out: listeners, routing, the request path, upstream connections.
