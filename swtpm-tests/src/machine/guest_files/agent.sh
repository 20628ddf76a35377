# Runs the scripts that the host sends over the second serial port, one line of base64 each, and answers with the
# output in base64 and "END" with the exit status.
export PATH=/bin:/usr/bin HOME=/root
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
