# shellcheck shell=bash
# The domains of scripts/libvirt-tests, and what their daemons are to be started with.

# filesystem TAG DIRECTORY [BINARY-ELEMENT [FURTHER-ELEMENTS]]
filesystem() {
    printf "<filesystem type='mount'><driver type='virtiofs' queue='1024'/>%s" "${3:-}"
    printf "<source dir='%s'/><target dir='%s'/>%s</filesystem>\n" "$2" "$1" "${4:-}"
}

# domain NAME TYPE: reads the <filesystem> elements.
#
# The first serial port is the console, the second the control line of lib/vm.sh. QEMU
# keeps less translated code than it would, or the second boot takes minutes.
domain() {
    cat <<XML
<domain type='$2'>
  <name>$1</name>
  <memory unit='MiB'>1024</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>/bed/kernel</kernel>
    <initrd>/bed/initramfs</initrd>
    <cmdline>console=ttyS0 quiet loglevel=3 panic=-1 try.mode=agent</cmdline>
  </os>
  <features><acpi/>$([[ $2 == kvm ]] || printf "<tcg><tb-cache unit='MiB'>128</tb-cache></tcg>")</features>
  <cpu mode='maximum'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='/bed/rootfs'/><target dev='vda' bus='virtio'/><readonly/>
    </disk>
    $(cat)
    <serial type='file'><source path='$VM_DIR/console.log' append='on'/></serial>
    <serial type='pipe'><source path='$VM_DIR/control'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
XML
}

readonly IDMAP="<idmap><uid start='0' target='100000' count='65536'/><gid start='0' target='100000' count='65536'/></idmap>"

system_domain() {
    {
        filesystem share "/bed/shares/a,b c"
        filesystem options /bed/shares/options "<binary xattr='on'><cache mode='always'/>\
<sandbox mode='chroot'/><thread_pool size='4'/><openfiles max='4096'/></binary>"
        if ! is_old_libvirt; then
            filesystem readonly /bed/shares/readonly '' '<readonly/>'
            filesystem idmap /bed/shares/idmap '' "$IDMAP"
        fi
        filesystem old "/bed/shares/old,style" "<binary path='$OLD_STYLE_DAEMON' xattr='on'>\
<cache mode='none'/><sandbox mode='namespace'/><lock posix='on' flock='on'/></binary>"
    } | domain system "$1"
}

# Before 10.0: nothing read-only, no mapped ids, nothing in a session, no limit of
# descriptors, and one style of options.
is_old_libvirt() { ((${LIBVIRT_VERSION%%.*} < 10)); }

# One line for each daemon, "|" between words, the number of the socket as N.
system_command_lines() {
    if is_old_libvirt; then
        old_command_lines
        return
    fi
    cat <<'LINES'
--fd=N|--shared-dir|/bed/shares/a,b c
--fd=N|--shared-dir|/bed/shares/options|--cache|always|--sandbox|chroot|--xattr|--thread-pool-size=4|--rlimit-nofile=4096
--fd=N|--shared-dir|/bed/shares/readonly|--readonly
--fd=N|--shared-dir|/bed/shares/idmap|--uid-map=:0:100000:65536:|--gid-map=:0:100000:65536:
--fd=N|-o|source=/bed/shares/old,,style,cache=none,sandbox=namespace,xattr,flock,posix_lock
LINES
}

old_command_lines() {
    cat <<'LINES'
--fd=N|-o|source=/bed/shares/a,,b c
--fd=N|-o|source=/bed/shares/options,cache=always,sandbox=chroot,xattr|--thread-pool-size=4
--fd=N|-o|source=/bed/shares/old,,style,cache=none,sandbox=namespace,xattr,flock,posix_lock
LINES
}

session_domain() {
    {
        filesystem share /bed/shares/session
        filesystem idmap /bed/shares/idmap '' "$IDMAP"
    } | domain session "$1"
}

session_command_lines() {
    cat <<'LINES'
--fd=N|--shared-dir|/bed/shares/session|--uid-map=:0:1500:1:|--uid-map=:1:100000:65536:|--gid-map=:0:1500:1:|--gid-map=:1:100000:65536:
--fd=N|--shared-dir|/bed/shares/idmap|--uid-map=:0:100000:65536:|--gid-map=:0:100000:65536:
LINES
}
