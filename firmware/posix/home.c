#include "home.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../runner/kept.h"
#include "files.h"

static const char lock_path[] = "run/lock", socket_path[] = "run/socket";

static ek_status choose(const char *option, ek_path *home, ek_error *error) {
    const char *chosen = option ? option : getenv("EDGEKIT_HOME"), *own = getenv("HOME");
    int length;
    if (!own || !*own) {
        const struct passwd *user = getpwuid(getuid());
        own = user ? user->pw_dir : NULL;
    }
    if (chosen && *chosen)
        length = snprintf(home->text, sizeof home->text, "%s", chosen);
    else if (own && *own)
        length = snprintf(home->text, sizeof home->text, "%s/.edgekit", own);
    else
        return ek_fail(error, EK_NOT_FOUND, "this user has no home folder; name one: --home DIR");
    if (length >= EK_HOME_BYTES)
        return ek_fail(error, EK_BAD_REQUEST, "the home folder's path is longer than %d bytes", EK_HOME_BYTES - 1);
    return EK_OK;
}

ek_status ek_home_enter(const char *option, ek_path *home, ek_error *error) {
    char absolute[EK_PATH_BYTES];
    if (choose(option, home, error) != EK_OK || ek_folder_make(home->text, error) != EK_OK)
        return error->status;
    if (chdir(home->text) != 0 || !getcwd(absolute, sizeof absolute) || strlen(absolute) >= EK_HOME_BYTES)
        return ek_fail(error, EK_IO, "cannot enter %.160s: %s", home->text, strerror(errno));
    memcpy(home->text, absolute, sizeof absolute);
    if (ek_folder_make("run", error) != EK_OK)
        return ek_fail(error, error->status, "cannot make %.160s/run: %s", home->text, strerror(errno));
    struct stat info;
    if (stat("run", &info) == 0 && (info.st_mode & 077) && chmod("run", 0700) != 0)
        return ek_fail(error, EK_PERMISSION, "%.160s/run is open to others, and cannot be closed: %s", home->text, strerror(errno));
    return EK_OK;
}

static int open_lock(void) { return open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); }

int ek_home_lock(void) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open_lock();
    if (fd < 0)
        return -1;
    if (fcntl(fd, F_SETLK, &lock) == 0)
        return 1; /* never closed: closing any descriptor of the file would let the lock go */
    int number = errno;
    close(fd);
    errno = number;
    return number == EAGAIN || number == EACCES ? 0 : -1;
}

pid_t ek_home_holder(void) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open_lock();
    if (fd < 0)
        return 0;
    bool held = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return held ? lock.l_pid : 0;
}

static struct sockaddr_un address(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, socket_path, sizeof socket_path);
    return to;
}

int ek_home_socket(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return fd;
}

int ek_home_connect(int fd) {
    struct sockaddr_un to = address();
    return connect(fd, (const struct sockaddr *)&to, sizeof to);
}

int ek_home_listen(int fd, int backlog) {
    struct sockaddr_un at = address();
    if (unlink(socket_path) != 0 && errno != ENOENT) /* of a host that ended without a word: the lock says that none lives */
        return -1;
    return bind(fd, (const struct sockaddr *)&at, sizeof at) == 0 ? listen(fd, backlog) : -1;
}
