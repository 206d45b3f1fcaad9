# What `jug run` confines a container with, where the kernel has AppArmor and no profile of the container tools is loaded.
profile jug-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,
  unix,

  # The engine ends what it started; inside, everybody may signal and trace one another.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=jug-default,
  ptrace (trace, read, tracedby, readby) peer=jug-default,

  deny mount,

  # Of the kernel's settings only those of the container's own IPC namespace.
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** wklx,
  deny /proc/{kallsyms,kcore,kmsg,sysrq-trigger} rwklx,

  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/{[^c],c[^g]}** wklx,
  deny /sys/{devices/virtual/powercap,firmware,kernel/debug,kernel/security}/** rwklx,
}
