/* The app of this benchmark: a static server that answers every request with 200. `server [PORT]`, else $PORT. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  const char *port = argc > 1 ? argv[1] : getenv("PORT");
  const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port ? port : "8080"))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) return 98;
  for (;;) {
    int stream = accept(listener, 0, 0);
    if (stream < 0) continue;
    char request[2048];
    if (read(stream, request, sizeof request) > 0) write(stream, answer, sizeof answer - 1);
    close(stream);
  }
}
