<?php
// Debian's wp-config.php reads this one for every host name.
function from_environment($name) {
    $file = getenv($name . '_FILE');
    return $file ? rtrim(file_get_contents($file), "\n") : (string) getenv($name);
}
define('DB_HOST', from_environment('DB_HOST'));
define('DB_NAME', from_environment('DB_NAME'));
define('DB_USER', from_environment('DB_USER'));
define('DB_PASSWORD', from_environment('DB_PASSWORD'));
define('WP_HOME', from_environment('SITE_URL'));
define('WP_SITEURL', from_environment('SITE_URL'));
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
