# FIFOs, devices and sockets are the guest's own affair: they have to work in
# the guest, and be nothing but names on the host.
mkfifo -m 640 fifo
(echo through >fifo) &
same "$(timeout 10 cat fifo)" through "what came out of the FIFO"
wait
mknod -m 600 null c 1 3
same "$(stat -c '%F %t:%T' null)" "character special file 1:3" "device"
echo gone >null
same "$(cat null)" "" "reading the null device"
mknod block b 7 300
same "$(stat -c '%F %t:%T' block)" "block special file 7:12c" "block device"
python3 - <<'PY'
import os, socket, threading
server = socket.socket(socket.AF_UNIX)
server.bind("socket")
server.listen()
def serve():
    connection, _ = server.accept()
    connection.sendall(b"hello")
    connection.close()
thread = threading.Thread(target=serve)
thread.start()
client = socket.socket(socket.AF_UNIX)
client.connect("socket")
assert client.recv(10) == b"hello"
thread.join()
os.mknod("regular", 0o100644)
assert os.stat("regular").st_size == 0
PY
