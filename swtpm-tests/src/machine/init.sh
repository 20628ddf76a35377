#!/bin/busybox sh
# First program of the test machine: mounts, then runs the scripts that the host sends over the second serial
# port, one line of base64 each, and answers with the output in base64 and "END" with the exit status.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var/lib /etc
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root
if [ -f /etc/ima-policy ]; then
    cat /etc/ima-policy > /sys/kernel/security/ima/policy
fi
insmod /lib/modules/e1000.ko
ifconfig lo up
# QEMU's user network: the host's loopback is 10.0.2.2.
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo ASSAY-AGENT-READY >&3
# A host that says nothing for an hour was killed before it could power us off.
while read -t 3600 -r line <&3; do
    echo "$line" | base64 -d > /tmp/script
    sh /tmp/script > /tmp/output 2>&1 < /dev/null 3>&-
    status=$?
    base64 /tmp/output >&3
    echo "END $status" >&3
done
poweroff -f
