<!doctype html>
<title>It works</title>
<h1>It works</h1>
<p>Java <%= System.getProperty("java.version") %>, <%= application.getServerInfo() %>, visit <%= ++visits %> since this page was compiled.</p>
<p>Put your .war files into the volume of /srv/tomcat/webapps.</p>
<%! private int visits; %>
