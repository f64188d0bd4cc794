//! The shell: one socket, one thread, connections side by side (or one after the other), a graceful end.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::flags::Flags;
use crate::journal::Journal;

/// Serves until SIGTERM or SIGINT, then lets running requests end. Fails when the port cannot be had.
pub(crate) fn run(flags: &Flags, journal: Option<Journal>) -> io::Result<()> {
    // Before the runtime: whoever waits for the port gets through now, and the kernel keeps the connection for us.
    let socket = listen(flags.port)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(socket, flags, journal))
}

async fn serve(socket: Socket, flags: &Flags, journal: Option<Journal>) -> io::Result<()> {
    let listener = TcpListener::from_std(socket.into())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if flags.port == 0 || flags.chatty {
        println!("listening on port {}", listener.local_addr()?.port());
    }

    let app = Arc::new(App::new(flags, journal, |name| std::env::var(name).ok()));
    if !flags.ready_delay.is_zero() {
        let (app, delay) = (app.clone(), flags.ready_delay);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            app.become_ready();
        });
    }

    let graceful = GracefulShutdown::new();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = connection(stream, app.clone(), flags.h2c, graceful.watcher());
                    let task = tokio::spawn(connection);
                    if flags.one_connection {
                        let _ = task.await;
                    }
                }
                // Out of descriptors, most likely: they come back when a connection ends.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let stop = async {
        loop {
            tokio::select! {
                _ = term.recv() => if !flags.ignore_term { return },
                _ = interrupt.recv() => return,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

async fn connection(stream: TcpStream, app: Arc<App>, h2c: bool, watcher: Watcher) {
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if !h2c {
        builder = builder.http1_only();
    }
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned();
    // A client that goes away, or speaks no HTTP: nothing to tell anybody.
    let _ = watcher.watch(connection).await;
}

/// One socket for both address families; IPv4 alone where IPv6 is switched off.
fn listen(port: u16) -> io::Result<Socket> {
    let dual_stack = || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_only_v6(false)?;
        bind(socket, (Ipv6Addr::UNSPECIFIED, port).into())
    };
    let v4 = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        bind(socket, (Ipv4Addr::UNSPECIFIED, port).into())
    };
    match dual_stack() {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => v4(),
        other => other,
    }
}

fn bind(socket: Socket, address: SocketAddr) -> io::Result<Socket> {
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket)
}
