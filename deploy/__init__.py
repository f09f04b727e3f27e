"""What puts UMRGEN on a box and watches it there: systemd units, installer, dashboard, alerts."""
