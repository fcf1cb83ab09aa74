<?php
// Waits for the database; makes tables and the first account if there are none.
$_SERVER['HTTP_HOST'] = 'localhost';
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
define('WP_INSTALLING', true);
require '/etc/wordpress/config-default.php';

mysqli_report(MYSQLI_REPORT_OFF);
for ($until = time() + 60; !($database = @mysqli_connect(DB_HOST, DB_USER, DB_PASSWORD, DB_NAME)); usleep(250000)) {
    if (time() > $until) {
        fwrite(STDERR, 'entrypoint: no database ' . DB_NAME . ' at ' . DB_HOST . ': ' . mysqli_connect_error() . "\n");
        exit(1);
    }
}
// two containers that start at once: one of them installs
mysqli_query($database, "SELECT GET_LOCK('wordpress-install', 120)");

// a new site writes no mail
function wp_mail() {
    return true;
}

require '/usr/share/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
if (is_blog_installed()) {
    exit(0);
}
$password = from_environment('ADMIN_PASSWORD');
if ($password === '') {
    fwrite(STDERR, "entrypoint: the first start needs ADMIN_PASSWORD or ADMIN_PASSWORD_FILE\n");
    exit(1);
}
wp_install(getenv('SITE_TITLE'), getenv('ADMIN_USER'), getenv('ADMIN_EMAIL'), true, '', wp_slash($password));
echo "entrypoint: the site was installed\n";
